// RangeLock: its rules by hand, then long random runs against a model that looks at every pair.
#include "vmrepl/bitmap/range_lock.hpp"

#include <algorithm>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace havm {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr auto shared = RangeLockKind::shared;
constexpr auto exclusive = RangeLockKind::exclusive;

RangeLockId id(std::uint64_t n) {
  return RangeLockId(n);
}

TEST(RangeLock, DisjointWritesRunTogether) {
  RangeLock lock;
  EXPECT_TRUE(lock.acquire(id(1), 0, 4096, exclusive));
  EXPECT_TRUE(lock.acquire(id(2), 4096, 4096, exclusive));
  EXPECT_EQ(lock.granted(), 2U);
}

TEST(RangeLock, OverlappingWritesRunInOrderOfArrival) {
  RangeLock lock;
  EXPECT_TRUE(lock.acquire(id(1), 0, 4096, exclusive));
  EXPECT_FALSE(lock.acquire(id(2), 2048, 4096, exclusive));
  EXPECT_FALSE(lock.acquire(id(3), 0, 8192, exclusive));
  EXPECT_EQ(lock.queued(), 2U);
  EXPECT_THAT(lock.release(id(1)), ElementsAre(id(2)));
  EXPECT_THAT(lock.release(id(2)), ElementsAre(id(3)));
  EXPECT_THAT(lock.release(id(3)), IsEmpty());
  EXPECT_EQ(lock.granted(), 0U);
}

TEST(RangeLock, ReadsShareButNotWithAWrite) {
  RangeLock lock;
  EXPECT_TRUE(lock.acquire(id(1), 0, 4096, shared));
  EXPECT_TRUE(lock.acquire(id(2), 0, 4096, shared));
  EXPECT_FALSE(lock.acquire(id(3), 0, 512, exclusive));
  EXPECT_THAT(lock.release(id(1)), IsEmpty());
  EXPECT_THAT(lock.release(id(2)), ElementsAre(id(3)));
}

TEST(RangeLock, AQueuedWriteIsNotOvertaken) {
  RangeLock lock;
  EXPECT_TRUE(lock.acquire(id(1), 0, 4096, shared));
  EXPECT_FALSE(lock.acquire(id(2), 0, 8192, exclusive));
  // Would be free to run beside 1, but would starve 2.
  EXPECT_FALSE(lock.acquire(id(3), 0, 4096, shared));
  // Touches only what 2 waits for.
  EXPECT_FALSE(lock.acquire(id(4), 4096, 512, exclusive));
  EXPECT_THAT(lock.release(id(1)), ElementsAre(id(2)));
  EXPECT_THAT(lock.release(id(2)), ElementsAre(id(3), id(4)));
}

TEST(RangeLock, AWithdrawnRequestLetsTheNextOnesPass) {
  RangeLock lock;
  EXPECT_TRUE(lock.acquire(id(1), 0, 4096, shared));
  EXPECT_FALSE(lock.acquire(id(2), 0, 4096, exclusive));
  EXPECT_FALSE(lock.acquire(id(3), 0, 4096, shared));
  EXPECT_THAT(lock.release(id(2)), ElementsAre(id(3)));
  EXPECT_EQ(lock.queued(), 0U);
  EXPECT_THAT(lock.release(id(1)), IsEmpty());
}

TEST(RangeLock, AnIdMayBeUsedAgainAfterWithdrawal) {
  RangeLock lock;
  EXPECT_TRUE(lock.acquire(id(1), 0, 4096, exclusive));
  EXPECT_FALSE(lock.acquire(id(2), 0, 4096, exclusive));
  EXPECT_THAT(lock.release(id(2)), IsEmpty());
  EXPECT_TRUE(lock.acquire(id(3), 8192, 4096, exclusive));
  EXPECT_FALSE(lock.acquire(id(2), 8192, 512, exclusive));
  // The end of 1 must not be taken for the end of what the new 2 waits for.
  EXPECT_THAT(lock.release(id(1)), IsEmpty());
  EXPECT_THAT(lock.release(id(3)), ElementsAre(id(2)));
}

TEST(RangeLock, ALongRequestFarToTheLeftIsSeen) {
  RangeLock lock;
  EXPECT_TRUE(lock.acquire(id(1), 0, std::uint64_t{1} << 30, exclusive));
  EXPECT_TRUE(lock.acquire(id(2), std::uint64_t{1} << 31, 512, exclusive));
  EXPECT_FALSE(lock.acquire(id(3), (std::uint64_t{1} << 30) - 512, 512, shared));
}

TEST(RangeLockDeathTest, MisuseIsABug) {
  RangeLock lock;
  ASSERT_TRUE(lock.acquire(id(1), 0, 512, exclusive));
  EXPECT_DEATH(static_cast<void>(lock.acquire(id(1), 4096, 512, exclusive)), "unique");
  EXPECT_DEATH(static_cast<void>(lock.acquire(id(2), 0, 0, exclusive)), "needs a range");
  EXPECT_DEATH(static_cast<void>(lock.release(id(7))), "present");
}

// All requests in order of arrival; one is granted when no earlier one conflicts with it.
class NaiveLock {
 public:
  struct Request {
    RangeLockId id;
    std::uint64_t offset;
    std::uint64_t length;
    RangeLockKind kind;
    bool granted;
  };
  bool acquire(RangeLockId new_id, std::uint64_t offset, std::uint64_t length, RangeLockKind kind) {
    requests_.push_back({new_id, offset, length, kind, false});
    requests_.back().granted = free_to_run(requests_.size() - 1);
    return requests_.back().granted;
  }
  std::vector<RangeLockId> release(RangeLockId old) {
    std::erase_if(requests_, [old](const Request& r) { return r.id == old; });
    std::vector<RangeLockId> granted;
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i].granted || !free_to_run(i)) continue;
      requests_[i].granted = true;
      granted.push_back(requests_[i].id);
    }
    return granted;
  }
  [[nodiscard]] const std::vector<Request>& requests() const { return requests_; }
  static bool conflict(const Request& a, const Request& b) {
    return a.offset < b.offset + b.length && b.offset < a.offset + a.length &&
           (a.kind == exclusive || b.kind == exclusive);
  }

 private:
  [[nodiscard]] bool free_to_run(std::size_t index) const {
    for (std::size_t i = 0; i < index; ++i)
      if (conflict(requests_[i], requests_[index])) return false;
    return true;
  }
  std::vector<Request> requests_;
};

void expect_no_two_granted_conflict(const NaiveLock& naive) {
  const auto& all = naive.requests();
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t k = i + 1; k < all.size(); ++k)
      ASSERT_FALSE(all[i].granted && all[k].granted && NaiveLock::conflict(all[i], all[k]));
}

TEST(RangeLock, MatchesTheNaiveModelAtRandom) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    RangeLock lock;
    NaiveLock naive;
    std::uint64_t next = 1;
    const std::uint64_t disk = 4 + random() % 60;
    for (int step = 0; step < 600; ++step) {
      const bool fuller = naive.requests().size() < 1 + random() % 30;
      if (fuller) {
        const std::uint64_t offset = random() % disk;
        const std::uint64_t length = 1 + random() % (random() % 10 == 0 ? disk : 6);
        const RangeLockKind kind = random() % 2 == 0 ? shared : exclusive;
        const RangeLockId fresh(next++);
        ASSERT_EQ(lock.acquire(fresh, offset, length, kind),
                  naive.acquire(fresh, offset, length, kind));
      } else {  // mostly ends of granted ones, sometimes a withdrawal
        const auto& all = naive.requests();
        const RangeLockId old = all[random() % all.size()].id;
        ASSERT_EQ(lock.release(old), naive.release(old));
      }
      expect_no_two_granted_conflict(naive);
      const auto granted = std::ranges::count(naive.requests(), true, &NaiveLock::Request::granted);
      ASSERT_EQ(lock.granted(), static_cast<std::size_t>(granted));
      ASSERT_EQ(lock.granted() + lock.queued(), naive.requests().size());
    }
    // No starvation, no cycle: ending whatever runs empties the queue.
    while (!naive.requests().empty()) {
      ASSERT_TRUE(naive.requests().front().granted);
      const RangeLockId old = naive.requests().front().id;
      ASSERT_EQ(lock.release(old), naive.release(old));
    }
    ASSERT_EQ(lock.granted() + lock.queued(), 0U);
  }
}

}  // namespace
}  // namespace havm
