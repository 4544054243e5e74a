// ActivityLogCore against a naive model at random: whatever the order of requests, log writes and
// flushes, a crash at any moment finds on disk every extent that may differ between the replicas.
#include <algorithm>
#include <map>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "vmrepl/bitmap/activity_log_core.hpp"

namespace havm {
namespace {

using Kind = ActivityLogCore::Admission::Kind;
using Table = std::vector<std::optional<LogExtent>>;
constexpr std::uint64_t extent = ActivityLogCore::extent_bytes;

struct Shape {
  std::uint32_t slots = 0;
  std::uint32_t extents = 0;      // of each disk
  std::uint32_t per_request = 0;  // at most
};

// Knows nothing of lists, queues and slots: which requests there are, what was released when.
class Model {
 public:
  Model(const Shape& shape, unsigned seed)
      : shape_(shape), random_(seed), disk_(shape.slots), core_(make_core(shape.slots)) {}

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      switch (pick(10)) {
        case 0:
        case 1:
        case 2:
          admit();
          break;
        case 3:
        case 4:
          release();
          break;
        case 5:
        case 6:
          start();
          break;
        case 7:
          done();
          break;
        case 8:
          flush();
          break;
        case 9:
          if (pick(20) == 0) crash_and_restart();
          break;
      }
      check();
    }
  }

  int logged = 0;
  int pending = 0;
  int full = 0;
  int crashes = 0;

 private:
  struct Request {
    std::uint16_t disk = 0;
    std::uint32_t first = 0;
    std::uint32_t count = 0;
    std::uint64_t transaction = 0;  // 0: logged at once
  };
  struct Flush {
    std::uint16_t disk = 0;
    std::uint64_t mark = 0;
    std::map<LogExtent, std::uint64_t> covers;  // last release of each at its start
  };
  static constexpr std::uint16_t disks = 2;

  std::uint32_t pick(std::uint32_t below) { return static_cast<std::uint32_t>(random_() % below); }

  ActivityLogCore make_core(std::uint32_t slots) {
    return ActivityLogCore({shape_.extents * extent, shape_.extents * extent}, Table(slots), 1);
  }

  static std::set<LogExtent> extents_of(const Request& r) {
    std::set<LogExtent> extents;
    for (std::uint32_t i = 0; i < r.count; ++i)
      extents.insert({r.disk, r.first + i});
    return extents;
  }
  [[nodiscard]] bool may_run(const Request& r) const {
    return r.transaction <= core_.durable_transaction();
  }

  // What may not leave the log: pinned, or released and not flushed.
  [[nodiscard]] std::set<LogExtent> kept() const {
    std::set<LogExtent> extents;
    for (const Request& r : requests_)
      extents.merge(extents_of(r));
    for (const auto& [e, when] : released_)
      extents.insert(e);
    return extents;
  }

  void admit() {
    Request r;
    r.disk = static_cast<std::uint16_t>(pick(disks));
    r.count = 1 + pick(shape_.per_request);
    r.first = pick(shape_.extents - r.count + 1);
    auto together = kept();
    together.merge(extents_of(r));
    const bool fits = together.size() <= shape_.slots;
    const std::uint64_t cut = r.count > 1 ? pick(3) * 512 : 0;  // not always at the borders
    const auto admission =
        core_.admit(r.disk, r.first * extent + cut, r.count * extent - cut - pick(512));
    ASSERT_EQ(admission.kind != Kind::full, fits);
    if (!fits) {
      ++full;
      EXPECT_TRUE(core_.starved());
      return;
    }
    const bool is_logged = admission.kind == Kind::logged;
    ++(is_logged ? logged : pending);
    EXPECT_NE(is_logged, admission.transaction > core_.durable_transaction());
    r.transaction = admission.transaction;
    requests_.push_back(r);
  }

  void release() {
    if (requests_.empty()) return;
    const std::size_t i = pick(static_cast<std::uint32_t>(requests_.size()));
    const Request r = requests_[i];
    requests_.erase(requests_.begin() + static_cast<std::ptrdiff_t>(i));
    core_.release(r.disk, r.first * extent + (r.count > 1 ? 1024 : 0),
                  r.count * extent - (r.count > 1 ? 1024 : 0));
    ++now_;
    for (const LogExtent e : extents_of(r)) {
      released_[e] = now_;
      if (may_run(r)) written_[e] = now_;  // its data may be on one replica alone
    }
  }

  void start() {
    auto t = core_.start_transaction();
    if (!t) return;
    ASSERT_TRUE(in_flight_.updates.empty());
    EXPECT_LE(t->updates.size(), ActivityLogCore::updates_max);
    in_flight_ = *t;
    const Table after = apply(disk_, in_flight_);
    for (std::size_t i = 0; i < t->context.size(); ++i)
      ASSERT_EQ(t->context[i], after[t->context_first + i]);
  }

  void done() {
    if (in_flight_.updates.empty()) return;
    disk_ = apply(disk_, in_flight_);
    core_.transaction_done(in_flight_.number);
    in_flight_ = {};
  }

  // Starts one, or ends one: several may run at once and end in any order.
  void flush() {
    if (flushes_.empty() || pick(2) == 0) {
      Flush f;
      f.disk = static_cast<std::uint16_t>(pick(disks));
      f.mark = core_.flush_started(f.disk);
      f.covers = released_;
      flushes_.push_back(std::move(f));
      return;
    }
    const std::size_t i = pick(static_cast<std::uint32_t>(flushes_.size()));
    const Flush f = flushes_[i];
    flushes_.erase(flushes_.begin() + static_cast<std::ptrdiff_t>(i));
    core_.flush_done(f.disk, f.mark);
    for (const auto& [e, when] : f.covers) {
      if (e.disk != f.disk) continue;
      for (auto* map : {&released_, &written_})
        if (const auto found = map->find(e); found != map->end() && found->second <= when)
          map->erase(found);
    }
  }

  void crash_and_restart() {
    ++crashes;
    std::uint64_t next = core_.durable_transaction() + 1;
    if (!in_flight_.updates.empty() && pick(2) == 0) {
      disk_ = apply(disk_, in_flight_);
      ++next;
    }
    in_flight_ = {};
    requests_.clear();
    flushes_.clear();
    released_.clear();
    written_.clear();
    for (const auto& e : disk_)
      if (e) released_[*e] = written_[*e] = now_;
    core_ = ActivityLogCore({shape_.extents * extent, shape_.extents * extent}, disk_, next);
  }

  static Table apply(Table table, const LogTransaction& t) {
    for (const LogSlot& update : t.updates)
      table[update.slot] = update.extent;
    return table;
  }

  static std::set<LogExtent> set_of(const Table& table) {
    std::set<LogExtent> extents;
    for (const auto& e : table)
      if (e) extents.insert(*e);
    return extents;
  }

  void check() {
    std::set<LogExtent> told;
    core_.for_each_extent([&](LogExtent e) { told.insert(e); });
    std::set<LogExtent> needed;
    for (const Request& r : requests_)
      if (may_run(r)) needed.merge(extents_of(r));
    for (const auto& [e, when] : written_)
      needed.insert(e);
    for (const Table& crashed : {disk_, apply(disk_, in_flight_)}) {
      const auto found = set_of(crashed);
      for (const LogExtent e : needed)
        ASSERT_TRUE(found.contains(e))
            << "disk " << e.disk << " extent " << e.index << " may differ and is not logged";
      for (const LogExtent e : found)
        ASSERT_TRUE(told.contains(e)) << "for_each_extent hides what a reader would find";
    }
    for (const LogExtent e : kept())
      ASSERT_TRUE(told.contains(e));
  }

  Shape shape_;
  std::mt19937 random_;
  Table disk_;  // as the finished transactions left it
  LogTransaction in_flight_;
  std::vector<Request> requests_;
  std::vector<Flush> flushes_;
  std::map<LogExtent, std::uint64_t> released_;  // not flushed since: last release
  std::map<LogExtent, std::uint64_t> written_;   // of these, those whose data was submitted
  std::uint64_t now_ = 0;
  ActivityLogCore core_;
};

TEST(ActivityLogModel, RandomHistories) {
  const std::vector<Shape> shapes{{4, 5, 2}, {9, 40, 9}, {16, 64, 3}, {64, 100, 9}, {200, 80, 20}};
  for (std::size_t s = 0; s < shapes.size(); ++s) {
    int logged = 0;
    int pending = 0;
    int full = 0;
    int crashes = 0;
    for (unsigned seed = 1; seed <= 12; ++seed) {
      SCOPED_TRACE("shape " + std::to_string(s) + " seed " + std::to_string(seed));
      Model model(shapes[s], seed);
      model.run(600);
      ASSERT_FALSE(HasFailure());
      logged += model.logged;
      pending += model.pending;
      full += model.full;
      crashes += model.crashes;
    }
    // The histories must have been where it matters.
    EXPECT_GT(logged, 50);
    EXPECT_GT(pending, 100);
    EXPECT_GT(crashes, 10);
    if (shapes[s].slots < 2 * shapes[s].extents) {
      EXPECT_GT(full, 50) << "shape " << s;
    }
  }
}

}  // namespace
}  // namespace havm
