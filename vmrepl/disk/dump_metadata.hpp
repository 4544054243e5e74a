// The job of dump_metadata: print a record, activity log or dirty bitmap file for people: what it
// is, what it says, and which parts of it are damaged. Takes no lock and changes nothing, so it may
// look at the files of a running engine; a block that is just being written may then seem torn.
// Blocking; any thread.
#pragma once

#include <cstddef>
#include <string>

#include "vmrepl/base/result.hpp"

namespace havm {

// Ranges listed of one log, or of one disk of a bitmap; of more only the number is told.
constexpr std::size_t dumped_ranges_max = 200;

// Lines of "key: value". An Error when the file cannot be read, or is none of the three.
Result<std::string> dump_metadata(const std::string& path);

}  // namespace havm
