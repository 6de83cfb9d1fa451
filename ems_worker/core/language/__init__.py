"""The plan language: parsing axes, options, designs, listed points and expressions, and reporting problems."""
