// UringLoop: more operations than the ring holds, errors, and ends at awkward moments.
#include "vmrepl/disk/uring_loop.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>

#include "tests/unit/vmrepl/disk/disk_fixture.hpp"
#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

class UringLoopTest : public DiskFixture {
 protected:
  void SetUp() override {
    auto loop = UringLoop::create(io_.get_executor());
    ASSERT_TRUE(loop) << loop.error().message;
    loop_ = std::move(loop).value();
    const std::string path = make_file("file", std::uint64_t{8} << 20);
    fd_.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(fd_.valid());
  }

  UringOperation operation(UringOperation::Kind kind, std::uint64_t offset, Buffer& buffer) {
    UringOperation op;
    op.kind = kind;
    op.fd = fd_.get();
    op.offset = offset;
    op.length = buffer.size();
    op.data = buffer.data();
    return op;
  }

  std::shared_ptr<UringLoop> loop_;
  UniqueFd fd_;
};

TEST_F(UringLoopTest, FarMoreOperationsThanTheRingHoldsAllEndOnce) {
  constexpr std::size_t count = 3 * UringLoop::in_flight_max + 17;
  Buffer buffer = filled(512, 1);
  std::vector<int> answers(count, 0);
  std::size_t ended = 0;
  for (std::size_t i = 0; i < count; ++i) {
    UringOperation op = operation(UringOperation::Kind::write, i * 512, buffer);
    op.done = [&answers, &ended, i](int result) {
      EXPECT_EQ(result, 512);
      ++answers[i];
      ++ended;
    };
    loop_->start(std::move(op));
  }
  EXPECT_EQ(loop_->outstanding(), count);
  ASSERT_TRUE(run_until([&] { return ended == count; }));
  EXPECT_TRUE(std::ranges::all_of(answers, [](int n) { return n == 1; }));
  EXPECT_EQ(loop_->outstanding(), 0U);
}

TEST_F(UringLoopTest, OperationsStartedFromADoneGoOn) {
  Buffer buffer = filled(4096, 2);
  int left = 500;
  std::function<void(int)> again = [&](int result) {
    ASSERT_EQ(result, 4096);
    if (--left == 0) return;
    UringOperation op = operation(UringOperation::Kind::write, 0, buffer);
    op.done = again;
    loop_->start(std::move(op));
  };
  UringOperation op = operation(UringOperation::Kind::write, 0, buffer);
  op.done = again;
  loop_->start(std::move(op));
  EXPECT_TRUE(run_until([&] { return left == 0; }));
}

TEST_F(UringLoopTest, KernelErrorsComeBackNegative) {
  const UniqueFd event(::eventfd(0, EFD_CLOEXEC));
  std::optional<int> answer;
  UringOperation op;
  op.kind = UringOperation::Kind::data_sync;
  op.fd = event.get();
  op.done = [&](int result) { answer = result; };
  loop_->start(std::move(op));
  ASSERT_TRUE(run_until([&] { return answer.has_value(); }));
  EXPECT_EQ(*answer, -EINVAL);
}

TEST_F(UringLoopTest, EndsInTheMiddleOfWorkWithoutADone) {
  const auto buffer = std::make_shared<Buffer>(filled(std::size_t{1} << 20, 3));
  const std::weak_ptr<Buffer> watched = buffer;
  for (int i = 0; i < 8; ++i) {
    UringOperation op = operation(UringOperation::Kind::read, std::uint64_t(i) << 20, *buffer);
    op.done = [buffer](int) { ADD_FAILURE() << "done after the end of the loop"; };
    loop_->start(std::move(op));
  }
  io_.poll_one();  // the deferred submission
  loop_.reset();
  io_.restart();
  io_.poll();
  EXPECT_EQ(watched.use_count(), 1);  // only ours is left
}

TEST_F(UringLoopTest, MayBeDroppedByItsLastDone) {
  Buffer buffer = filled(512, 4);
  bool ended = false;
  UringOperation op = operation(UringOperation::Kind::write, 0, buffer);
  op.done = [&](int) {
    loop_.reset();
    ended = true;
  };
  loop_->start(std::move(op));
  EXPECT_TRUE(run_until([&] { return ended; }));
}

}  // namespace
}  // namespace havm
