"""`dime evaluate MODEL --tasks ...`: the protocol's tasks on sets in a folder, for several models side by side."""
