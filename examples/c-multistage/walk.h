/* How many files that are no directories lie below a path, on its own file system; -1 with errno set if it cannot be read. */
long files_below(const char *path);
