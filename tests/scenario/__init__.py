"""Scripts of commands with the expected output under each: they read as documentation."""
