"""From pictures and sentences as people have them to shards: `dime shards`. Imports no torch but for stored features."""
