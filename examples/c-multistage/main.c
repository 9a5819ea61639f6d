#include "walk.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : ".";
    long files = files_below(path);
    if (files < 0) {
        perror(path);
        return 1;
    }
    printf("census %s: %ld below %s\n", VERSION, files, path);
    return 0;
}
