"""The embedded world: rendered scenes, sentences about scenes, small towers; a first run needs no download."""
