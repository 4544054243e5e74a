#include "agent/daemon/history_store.hpp"

#include <filesystem>

#include <gtest/gtest.h>
#include <unistd.h>

namespace havm {
namespace {

class HistoryStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ =
        (std::filesystem::temp_directory_path() / ("havm-history-" + std::to_string(::getpid())))
            .string();
    TearDown();
  }
  void TearDown() override {
    for (const char* suffix : {"", "-wal", "-shm"})
      std::filesystem::remove(path_ + suffix);
  }
  static HistoryEvent event(const std::string& vm, const std::string& kind) {
    HistoryEvent e;
    e.vm = vm;
    e.node = "a";
    e.kind = kind;
    e.text = "why";
    e.epoch = 4;
    e.at = from_ns(77);
    return e;
  }
  std::string path_;
};

TEST_F(HistoryStoreTest, Events_survive_a_restart_in_order) {
  {
    auto store = HistoryStore::open(path_);
    ASSERT_TRUE(store);
    store.value()->append(event("web1", "promise"));
    store.value()->append(event("web1", "cas-won"));
    store.value()->append(event("db1", "shrunk"));
  }
  auto store = HistoryStore::open(path_);
  ASSERT_TRUE(store);
  const auto events = store.value()->events("web1");
  ASSERT_EQ(2U, events.size());
  EXPECT_EQ("promise", events[0]["kind"]);
  EXPECT_EQ("cas-won", events[1]["kind"]);
  EXPECT_EQ(77, events[1]["time_ns"]);
  EXPECT_EQ(4, events[1]["epoch"]);
}

TEST_F(HistoryStoreTest, The_oldest_events_of_a_VM_make_room_and_others_keep_theirs) {
  auto store = HistoryStore::open(path_);
  ASSERT_TRUE(store);
  store.value()->append(event("db1", "kept"));
  for (int i = 0; i < HistoryStore::events_per_vm_max + 5; ++i)
    store.value()->append(event("web1", std::to_string(i)));
  const auto events = store.value()->events("web1");
  ASSERT_EQ(static_cast<std::size_t>(HistoryStore::events_per_vm_max), events.size());
  EXPECT_EQ("5", events[0]["kind"]);
  EXPECT_EQ(1U, store.value()->events("db1").size());
  store.value()->forget("web1");
  EXPECT_TRUE(store.value()->events("web1").empty());
}

TEST_F(HistoryStoreTest, A_damaged_file_is_an_error_that_names_it) {
  {
    std::FILE* f = std::fopen(path_.c_str(), "w");
    std::fputs("not a database at all, but long enough", f);
    std::fclose(f);
  }
  auto store = HistoryStore::open(path_);
  ASSERT_FALSE(store);
  EXPECT_NE(std::string::npos, store.error().message.find(path_));
}

}  // namespace
}  // namespace havm
