"""What a start does: loads what an earlier worker left, and replays the streams after a restore."""
