#include "vmrepl/session/snapshot_set.hpp"

#include <utility>

namespace havm {
namespace {

std::string temporary_path(const std::string& image) {
  return snapshot_path(image) + ".new";
}

std::string mib(std::uint64_t bytes) {
  return std::to_string(bytes >> 20) + " MiB";
}

}  // namespace

std::vector<SnapshotSet::File> SnapshotSet::find() const {
  std::vector<File> found;
  for (const std::string& image : images_) {
    const auto facts = files_.facts(snapshot_path(image));
    if (!facts) return {};
    found.push_back(
        {image, snapshot_path(image), facts.value().allocated_bytes, facts.value().modified_s});
  }
  return found;
}

Result<void> SnapshotSet::remove() {
  Result<void> outcome = success();
  for (const std::string& image : images_)
    for (const std::string& path : {snapshot_path(image), temporary_path(image)}) {
      const auto removed = files_.remove(path);
      if (!removed && outcome) outcome = removed;
    }
  return outcome;
}

bool SnapshotSet::low_on_space() const {
  for (const std::string& image : images_) {
    const auto facts = files_.facts(image);
    if (facts && facts.value().free_bytes < reserve_bytes / 2) return true;
  }
  return false;
}

// Images on several file systems are counted as if on one: too much rather than too little.
Result<void> SnapshotSet::check_space(bool everything) const {
  std::uint64_t needed = reserve_bytes;
  for (const std::string& image : images_) {
    BOOST_OUTCOME_TRY(const auto facts, files_.facts(image));
    if (everything) needed += facts.allocated_bytes;
  }
  for (const std::string& image : images_) {
    BOOST_OUTCOME_TRY(const auto facts, files_.facts(image));
    if (facts.free_bytes < needed)
      return Error("only " + mib(facts.free_bytes) + " are free beside " + image +
                   ", it may cost " + mib(needed));
  }
  return success();
}

Result<void> SnapshotSet::make(bool everything) {
  BOOST_OUTCOME_TRY(remove());
  BOOST_OUTCOME_TRY(check_space(everything));
  for (const std::string& image : images_) {
    BOOST_OUTCOME_TRY(files_.clone(image, temporary_path(image)));
  }
  for (const std::string& image : images_) {
    BOOST_OUTCOME_TRY(files_.rename(temporary_path(image), snapshot_path(image)));
  }
  return success();
}

SnapshotSet::Outcome SnapshotSet::prepare(bool consistent, bool everything) {
  Outcome outcome;
  if (!consistent) {
    outcome.files = find();
    if (outcome.files.empty())
      outcome.why_not = "this replica was incomplete already, and nothing older was kept";
    return outcome;
  }
  const Result<void> made = make(everything);
  if (!made) {
    outcome.why_not = made.error().message;
    const auto removed = remove();
    if (!removed) outcome.why_not += "; " + removed.error().message;
    return outcome;
  }
  outcome.made = true;
  outcome.files = find();
  return outcome;
}

}  // namespace havm
