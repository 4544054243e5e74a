// The job of CrashFile: a file of a host that can lose its power, sector by sector.
//
// Guarantees
//  1. A write takes effect when it completes. Until a flush that began later has ended, or at once
//     with FUA, each of its sectors may be lost in a power cut, on its own: writes are torn.
//  2. A power cut leaves of each sector what was flushed or any later content, also of a write that
//     was in flight. A killed process loses nothing that had completed; of what was in flight any
//     sectors take effect.
// A Sector stands for 512 bytes, which are atomic. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "tests/torture/chance.hpp"

namespace havm::torture {

// What of the unflushed sectors survives a power cut.
enum class Survival : std::uint8_t { nothing, everything, some, most };

inline Survival any_survival(Chance& chance) {
  return static_cast<Survival>(chance.pick(4));
}

template <class Sector>
class CrashFile {
 public:
  explicit CrashFile(std::size_t sectors) : durable_(sectors), contents_(sectors) {}

  [[nodiscard]] const std::vector<Sector>& contents() const { return contents_; }
  [[nodiscard]] const std::vector<Sector>& durable() const { return durable_; }

  std::uint64_t begin_write(std::size_t first, std::vector<Sector> sectors) {
    in_flight_.emplace(++last_id_, Write{first, std::move(sectors)});
    return last_id_;
  }
  void end_write(std::uint64_t id, bool fua) {
    const Write write = std::move(in_flight_.at(id));
    in_flight_.erase(id);
    for (std::size_t i = 0; i < write.sectors.size(); ++i)
      take_effect(write.first + i, write.sectors[i], fua);
  }

  // The mark of a flush that begins now.
  [[nodiscard]] std::uint64_t begin_flush() const { return effects_; }
  void end_flush(std::uint64_t mark) {
    for (auto it = unflushed_.begin(); it != unflushed_.end();) {
      auto& [sector, newer] = *it;
      std::size_t covered = 0;
      while (covered < newer.size() && newer[covered].first <= mark)
        durable_[sector] = newer[covered++].second;
      newer.erase(newer.begin(), newer.begin() + static_cast<std::ptrdiff_t>(covered));
      it = newer.empty() ? unflushed_.erase(it) : std::next(it);
    }
  }
  void sync() { end_flush(begin_flush()); }

  [[nodiscard]] std::vector<Sector> after_power_cut(Chance& chance, Survival survival) const {
    std::vector<Sector> image = durable_;
    for (const auto& [sector, newer] : unflushed_) {
      const std::size_t n = newer.size();
      switch (survival) {
        case Survival::nothing:
          break;
        case Survival::everything:
          image[sector] = newer[n - 1].second;
          break;
        case Survival::some:
          if (const std::size_t kept = chance.pick(n + 1); kept != 0)
            image[sector] = newer[kept - 1].second;
          break;
        case Survival::most:
          if (!chance.one_in(8)) image[sector] = newer[n - 1].second;
          break;
      }
    }
    if (survival == Survival::nothing) return image;
    for (const auto& [id, write] : in_flight_)
      for (std::size_t i = 0; i < write.sectors.size(); ++i)
        if (chance.one_in(2)) image[write.first + i] = write.sectors[i];
    return image;
  }
  void power_cut(Chance& chance, Survival survival) {
    durable_ = after_power_cut(chance, survival);
    contents_ = durable_;
    unflushed_.clear();
    in_flight_.clear();
  }
  void process_killed(Chance& chance) {
    for (const auto& [id, write] : std::exchange(in_flight_, {}))
      for (std::size_t i = 0; i < write.sectors.size(); ++i)
        if (chance.one_in(2)) take_effect(write.first + i, write.sectors[i], false);
  }

 private:
  struct Write {
    std::size_t first = 0;
    std::vector<Sector> sectors;
  };

  void take_effect(std::size_t sector, const Sector& content, bool fua) {
    contents_[sector] = content;
    ++effects_;
    if (!fua) {
      unflushed_[sector].emplace_back(effects_, content);
      return;
    }
    durable_[sector] = content;
    unflushed_.erase(sector);
  }

  std::vector<Sector> durable_;
  std::vector<Sector> contents_;
  // By sector: what it was after durable_, oldest first, with the number of the effect.
  std::map<std::size_t, std::vector<std::pair<std::uint64_t, Sector>>> unflushed_;
  std::map<std::uint64_t, Write> in_flight_;
  std::uint64_t last_id_ = 0;
  std::uint64_t effects_ = 0;
};

}  // namespace havm::torture
