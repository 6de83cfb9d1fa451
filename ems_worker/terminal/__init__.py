"""The only code that prints to a terminal. Text from other people is displayed, never interpreted.

A terminal executes the control sequences that it receives: a description or an error message could change the
clipboard, the title of the window, or lines that are already on the screen. `text` replaces such characters, `streams`
does all printing, and `drawing` draws tables and bars in our own colours.
"""
