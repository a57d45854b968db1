// Tables of reports: alignment by characters, Markdown and CSV with awkward cells.
#include "commands/report_table.h"

#include <doctest/doctest.h>

using namespace tessera;

namespace {

ReportTable awkward() {
  return {{{"name", true}, {"value"}, {"last", true}},
          {{"a", "1.5 ± 0.1", "x"},
           {"longer|name", "2", "say \"hi\", twice"},
           {"short", "skipped: for a long reason"}}};
}

}  // namespace

TEST_CASE("aligned text counts characters and lets remarks run on") {
  CHECK(aligned_table(awkward()) ==
        "name             value  last\n"
        "a            1.5 ± 0.1  x\n"
        "longer|name          2  say \"hi\", twice\n"
        "short        skipped: for a long reason\n");
}

TEST_CASE("Markdown escapes bars and fills short rows") {
  CHECK(markdown_table(awkward()) ==
        "| name | value | last |\n"
        "|---|---:|---|\n"
        "| a | 1.5 ± 0.1 | x |\n"
        "| longer\\|name | 2 | say \"hi\", twice |\n"
        "| short | skipped: for a long reason |  |\n");
}

TEST_CASE("CSV quotes what needs it") {
  CHECK(csv_table(awkward()) ==
        "name,value,last\n"
        "a,1.5 ± 0.1,x\n"
        "longer|name,2,\"say \"\"hi\"\", twice\"\n"
        "short,skipped: for a long reason,\n");
  CHECK(csv_table({{{"a"}, {"b"}}, {{"two\nlines", "r\r"}}}) == "a,b\n\"two\nlines\",\"r\r\"\n");
}
