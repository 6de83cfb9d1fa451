"""Settings of all unit tests."""

import hypothesis

# A busy machine makes single examples slow, which says nothing about the code.
hypothesis.settings.register_profile("ems", deadline=None, print_blob=True)
hypothesis.settings.load_profile("ems")
