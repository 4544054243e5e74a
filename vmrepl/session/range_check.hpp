// The job of these types: a range that PrimaryCore compares with the partner's, and what it keeps
// of that meanwhile. Data only. Bytes.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "vmrepl/resync/check_outcome.hpp"
#include "vmrepl/session/session_types.hpp"
#include "vmrepl/wire/grain_hash.hpp"

namespace havm {

struct DiskRange {
  std::uint16_t disk = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
};

struct RangeCheck {
  bool verifies = false;          // else it is a copy of a resync, of which only a part may be sent
  bool repairs = false;           // (verify) what differs is sent
  std::vector<GrainHash> hashes;  // of the own replica
  CheckOutcome outcome;
};

using RangeChecks = std::unordered_map<OpId, RangeCheck>;

}  // namespace havm
