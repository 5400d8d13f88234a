"""The schema, one numbered file for each of its versions; a file that was released is never changed."""
