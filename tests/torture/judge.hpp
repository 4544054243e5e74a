// The job of Judge: know what the guest was promised, sector by sector, and hold the replicas to
// it, whatever the engines and agents believe. It sees images, the register and the guest's
// requests only.
//
// What it demands. R is the register's in-sync set; a replica *lacks* when its host lost its power
// while R named both and R still does.
//  J1. Every completed write is on every replica of R that does not lack (G1).
//  J2. Every write that a completed flush or FUA covers is in what any power cut may leave of any
//      replica of R (G2). So is every write that was completed when R last went from both to one
//      (rule 3: flush before the shrink).
//  J3. A VM that starts finds both; and from then on what it found counts as completed.
//  J4. A flush is answered after every write of its disk that was asked for before it.
// A completed write may be lost only when no flush covers it, and it completed after R last went
// from both to one, and
//  - R names one replica, and that host loses its power: no more than any disk with a cache; or
//  - R names both, and both hosts lose their power before R is swapped (two faults); or
//  - R names both, the owner's host loses its power and its partner is not heard within
//    boot_grace: the owner goes on alone (two faults).
// One thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/torture/node_disk.hpp"
#include "tests/torture/surroundings.hpp"

namespace havm::torture {

struct Register {
  Epoch epoch{1};
  int owner = 0;
  std::array<bool, 2> in_sync{true, false};
  [[nodiscard]] bool both() const { return in_sync[0] && in_sync[1]; }
  bool operator==(const Register&) const = default;
};

using PerSector = std::vector<std::uint64_t>;  // arrival numbers, of both disks

class Judge {
 public:
  explicit Judge(Surroundings& world);

  // The guest's requests. Arrival numbers order the writes of a sector.
  std::uint64_t next_arrival() { return ++arrivals_; }
  void write_submitted(std::size_t sector, std::uint64_t arrival, std::uint64_t value);
  void write_completed(std::size_t first, std::size_t count, std::uint64_t arrival, bool fua,
                       bool owner_has_changed);
  // `before`: completed() when it was submitted.
  void flush_completed(std::uint16_t disk, const PerSector& before);
  void read_completed(std::size_t first, const std::vector<std::uint64_t>& values,
                      const PerSector& before);
  [[nodiscard]] const PerSector& completed() const { return completed_; }

  void power_cut(int node, const Register& now, bool nothing_unflushed);
  void swapped(const Register& before, const Register& after, bool partner_is_heard);
  void vm_starts(int node, const NodeDisk& disk);
  void vm_resumes(int node, const NodeDisk& disk);

  // J1 and J2 now, of both replicas.
  void check(const Register& now, const NodeDisk& a, const NodeDisk& b);
  // The last word: both images are the same.
  void check_equal(const NodeDisk& a, const NodeDisk& b);

 private:
  struct Write {
    std::uint64_t arrival = 0;
    std::uint64_t value = 0;
  };
  // The newest write of this value that is not older than `least`; 0 and false: none.
  [[nodiscard]] bool find(std::size_t sector, std::uint64_t value, std::uint64_t least,
                          std::uint64_t& arrival) const;
  void demand(std::size_t sector, std::uint64_t value, std::uint64_t least, const std::string& who);
  [[nodiscard]] std::uint64_t certain(std::size_t sector) const;
  void lower();

  Surroundings& world_;
  std::uint64_t arrivals_ = 0;
  std::vector<std::vector<Write>> history_;
  PerSector completed_;
  PerSector flushed_;
  PerSector secured_;  // was completed when R last went from both to one
  PerSector told_;     // as completed_, but never lowered before a VM starts
  std::array<bool, 2> lacks_{};
  std::array<bool, 2> was_cut_{};  // as lacks_, but perhaps it lost nothing
};

}  // namespace havm::torture
