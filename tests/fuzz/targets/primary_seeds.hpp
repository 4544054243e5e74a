// The job of primary_seeds: the first inputs of PrimaryCore's fuzz target
// (targets/primary_core.cpp): short histories that reach a live session, its loss, a full resync, a
// comparison, a rescued read and a log without room. Bytes as World::step reads them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/fuzz/support/fuzz_target.hpp"

namespace havm::fuzz {

inline std::vector<std::string> primary_seeds() {
  const auto write = [](std::uint8_t slot, std::uint8_t flags = 0) {
    return packed(0, 1) + packed(0, 1) + packed(0, 1) + packed(slot, 1) + packed(1, 1) +
           packed(flags, 1);
  };
  const std::string read =
      packed(0, 1) + packed(2, 1) + packed(0, 1) + packed(1, 1) + packed(1, 1) + packed(0, 1);
  const std::string flush = packed(0, 1) + packed(4, 1) + packed(0, 1) + packed(0, 1);
  const std::string local = packed(4, 1) + packed(0, 1) + packed(99, 1);
  const std::string failed = packed(4, 1) + packed(0, 1) + packed(0, 1);
  const std::string flushed = packed(7, 1) + packed(0, 1) + packed(99, 1);
  const std::string connect = packed(8, 1) + packed(0, 1) + packed(0, 1);
  const std::string connect_full = packed(8, 1) + packed(0, 1) + packed(1, 1);
  const std::string save = packed(12, 1) + packed(1, 1) + packed(12, 1) + packed(2, 1);
  const std::string lose = packed(8, 1) + packed(2, 1);
  const std::string lease = packed(8, 1) + packed(3, 1);
  const std::string logged = packed(12, 1) + packed(0, 1);
  const std::string answer = packed(13, 1) + packed(99, 1) + packed(0, 1);
  const auto copy = [&](std::uint8_t how) {
    return packed(9, 1) + packed(how, 1) + local + answer;
  };
  const std::string end_resync = packed(9, 1);
  const auto role = [](std::uint8_t what) { return packed(11, 1) + packed(what, 1); };
  const std::string alone = write(0) + logged + local;
  const std::string synced = alone + connect + answer + copy(1) + end_resync + answer;
  std::string all;
  for (int i = 0; i < 6; ++i)
    all += copy(2);
  const std::string live = synced + role(0) + role(3) + answer;
  return {
      write(0) + logged + local + flush + flushed + connect + answer + write(1) + lose + local,
      live + write(0, 1) + logged + local + answer + write(2) + flush + local + answer + flushed +
          answer,
      live + lease + answer + write(0) + logged + write(0) + lose + local + role(6) + local,
      live + role(5) + write(3) + role(6) + logged + local + role(7) + packed(0, 1),
      connect_full + save + answer + all + end_resync + answer,
      write(0) + logged + local + connect + answer + copy(0) + answer + end_resync + answer +
          role(0),
      live + read + failed + answer + logged + local,
      write(0) + logged + write(8) + logged + local + local + write(12) + flushed + logged + local,
      synced + packed(13, 1) + packed(255, 1) + packed(0, 1) + packed(~0ULL, 8)};
}

}  // namespace havm::fuzz
