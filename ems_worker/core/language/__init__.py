"""What a plan may say, and how it is read: axes, options, designs, listed points, expressions, paths and problems."""
