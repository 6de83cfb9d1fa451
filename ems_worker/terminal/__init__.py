"""The one way from a program to a terminal: what others wrote is shown, and none of it is obeyed.

A terminal obeys what it is sent: a description or an error of a stranger could change the clipboard, the window's
title, or what the screen seems to say. `text` makes such words harmless, `streams` is where everything is printed,
`drawing` is for tables and bars with colours of our own.
"""
