// The main function of every unit and golden test, compiled once: it is most of what a small test costs to
// build.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
