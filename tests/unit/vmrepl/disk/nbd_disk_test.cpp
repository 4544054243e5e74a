// NbdDisk on real nbdkit servers, whole and with faults injected.
#include "vmrepl/disk/nbd_disk.hpp"

#include <algorithm>
#include <cerrno>

#include <boost/asio/steady_timer.hpp>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/unit/vmrepl/disk/disk_fixture.hpp"
#include "tests/unit/vmrepl/disk/nbdkit.hpp"
#include "vmrepl/disk/file_disk.hpp"
#include "vmrepl/disk/open_disk.hpp"

namespace havm {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

class NbdDiskTest : public DiskFixture {
 protected:
  std::unique_ptr<NbdDisk> open(const Nbdkit& server, const NbdDiskOptions& options = {}) {
    auto disk = NbdDisk::open(io_.get_executor(), server.uri(), options);
    EXPECT_TRUE(disk) << disk.error().message;
    return disk ? std::move(disk).value() : nullptr;
  }
  std::string open_error(const std::string& uri, int code, const NbdDiskOptions& options = {}) {
    const auto disk = NbdDisk::open(io_.get_executor(), uri, options);
    if (disk) {
      ADD_FAILURE() << "opened what must be refused";
      return {};
    }
    EXPECT_EQ(disk.error().code, code) << disk.error().message;
    EXPECT_THAT(disk.error().message, HasSubstr(uri));
    return disk.error().message;
  }
  Nbdkit serve(std::vector<std::string> arguments) { return Nbdkit(std::move(arguments)); }
  // A request whose answer is looked at later.
  struct Pending {
    std::optional<int> answer;
  };
  std::shared_ptr<Pending> start(const std::function<void(ReplicaDisk::Done)>& request) {
    const auto pending = std::make_shared<Pending>();
    request([pending](int error) {
      EXPECT_FALSE(pending->answer) << "answered twice";
      pending->answer = error;
    });
    EXPECT_FALSE(pending->answer) << "done was called from inside the call";
    return pending;
  }
  void run_for(std::chrono::milliseconds time) {
    bool over = false;
    boost::asio::steady_timer timer(io_, time);
    timer.async_wait([&](const boost::system::error_code&) { over = true; });
    run_until([&] { return over; });
  }
  void touch(const std::string& path) { std::ofstream(path).close(); }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }
};

TEST_F(NbdDiskTest, WritesAreReadAgainAndAreInTheFile) {
  const std::string file = make_file("image", 32 * mib);
  const Nbdkit server = serve({"file", file});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  EXPECT_EQ(disk->size_bytes(), 32 * mib);
  EXPECT_EQ(disk->alignment_bytes(), 512U);
  const Buffer data = filled(20 * mib + 512, 1);  // several commands
  EXPECT_EQ(write(*disk, 3 * mib, data.span()), 0);
  EXPECT_EQ(write(*disk, 512, data.span().first(4096), true), 0);
  EXPECT_EQ(flush(*disk), 0);
  Buffer seen(20 * mib + 512);
  EXPECT_EQ(read(*disk, 3 * mib, seen.span()), 0);
  EXPECT_TRUE(equal(seen.span(), data.span()));
  const auto content = content_of(file);
  EXPECT_TRUE(equal(std::span(content).subspan(3 * mib, data.size()), data.span()));
  EXPECT_TRUE(equal(std::span(content).subspan(512, 4096), data.span().first(4096)));
}

TEST_F(NbdDiskTest, ManyConcurrentRandomWritesEndInThatImage) {
  constexpr std::size_t block = 4096;
  constexpr std::size_t blocks = 2048;
  const std::string file = make_file("image", blocks * block);
  const Nbdkit server = serve({"file", file});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  Buffer model = filled(blocks * block, 3);
  std::vector<std::size_t> order(blocks);
  for (std::size_t i = 0; i < blocks; ++i)
    order[i] = i;
  std::ranges::shuffle(order, std::mt19937(4));
  std::size_t ended = 0;
  for (const std::size_t i : order)
    disk->write(i * block, model.span().subspan(i * block, block), i % 50 == 0, [&](int error) {
      EXPECT_EQ(error, 0);
      ++ended;
    });
  EXPECT_EQ(ended, 0U);
  ASSERT_TRUE(run_until([&] { return ended == blocks; }));
  EXPECT_EQ(flush(*disk), 0);
  EXPECT_TRUE(equal(content_of(file), model.span()));
}

TEST_F(NbdDiskTest, ZeroReadsAsZeroesAlsoWhereTheServerHasNoSuchCommand) {
  for (const bool offered : {true, false}) {
    SCOPED_TRACE(offered);
    const std::string file = make_file(offered ? "with" : "without", 24 * mib);
    std::vector<std::string> arguments{"file", file};
    if (!offered) arguments = {"--filter=nozero", "file", file, "zeromode=none"};
    const Nbdkit server = serve(arguments);
    const auto disk = open(server);
    ASSERT_TRUE(disk);
    const Buffer data = filled(24 * mib, 5);
    for (const bool may_unmap : {true, false}) {
      ASSERT_EQ(write(*disk, 0, data.span()), 0);
      ASSERT_EQ(zero(*disk, mib + 512, 20 * mib, may_unmap), 0);
      ASSERT_EQ(flush(*disk), 0);
      auto expected = std::vector<std::byte>(data.span().begin(), data.span().end());
      std::fill_n(expected.begin() + mib + 512, 20 * mib, std::byte{0});
      EXPECT_TRUE(equal(content_of(file), expected));
      struct stat st {};
      ASSERT_EQ(::stat(file.c_str(), &st), 0);
      if (offered && may_unmap) {
        EXPECT_LT(st.st_blocks * 512, 6 * static_cast<long>(mib));
      } else {
        EXPECT_GT(st.st_blocks * 512, 20 * static_cast<long>(mib));
      }
    }
  }
}

TEST_F(NbdDiskTest, WithoutFuaAFlushFollowsTheWrite) {
  const std::string log = path("commands");
  const Nbdkit server = serve({"--filter=log", "eval", "get_size=echo 1048576", "pread=exit 1",
                               "pwrite=cat >/dev/null", "can_flush=exit 0", "flush=exit 0",
                               "can_fua=echo none", "logfile=" + log});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  const Buffer data = filled(4096, 2);
  EXPECT_EQ(write(*disk, 0, data.span()), 0);
  const auto flushes = [&] {
    const auto bytes = content_of(log);
    const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return text.find(" Flush ") != std::string::npos;
  };
  EXPECT_FALSE(flushes());
  EXPECT_EQ(write(*disk, 0, data.span(), true), 0);
  EXPECT_TRUE(flushes());
}

TEST_F(NbdDiskTest, NothingAsLengthIsAnsweredToo) {
  const Nbdkit server = serve({"memory", "1M"});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  EXPECT_EQ(write(*disk, 0, {}), 0);
  EXPECT_EQ(read(*disk, mib, {}), 0);
  EXPECT_EQ(zero(*disk, mib, 0, true), 0);
}

TEST_F(NbdDiskTest, ExtentsAreAllData) {
  const Nbdkit server = serve({"memory", "1M"});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  const auto extents = disk->extents(512, 8192);
  ASSERT_TRUE(extents);
  ASSERT_EQ(extents.value().size(), 1U);
  EXPECT_EQ(extents.value()[0].offset, 512U);
  EXPECT_EQ(extents.value()[0].length, 8192U);
  EXPECT_FALSE(extents.value()[0].hole);
  EXPECT_TRUE(disk->extents(mib, 0).value().empty());
}

TEST_F(NbdDiskTest, LargerBlocksAreTheAlignment) {
  const Nbdkit server =
      serve({"--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=4096",
             "blocksize-preferred=4096", "blocksize-maximum=32M"});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  EXPECT_EQ(disk->alignment_bytes(), 4096U);
}

TEST_F(NbdDiskTest, EveryErrorOfTheServerIsTold) {
  const std::string fault = path("fault");
  const Nbdkit server =
      serve({"--filter=error", "memory", "4M", "error-pread=EIO", "error-pread-rate=100%",
             "error-pwrite=ENOSPC", "error-pwrite-rate=100%", "error-zero=ENOMEM",
             "error-zero-rate=100%", "error-file=" + fault});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  const Buffer data = filled(4096, 1);
  Buffer seen(4096);
  EXPECT_EQ(write(*disk, 0, data.span()), 0);
  touch(fault);
  EXPECT_EQ(write(*disk, 0, data.span()), ENOSPC);
  EXPECT_EQ(read(*disk, 0, seen.span()), EIO);
  EXPECT_EQ(zero(*disk, 0, 4096, true), ENOMEM);
  std::filesystem::remove(fault);
  EXPECT_EQ(flush(*disk), 0) << "a failed write without FUA was never promised to be durable";
  EXPECT_EQ(read(*disk, 0, seen.span()), 0);
  EXPECT_TRUE(equal(seen.span(), data.span()));
}

TEST_F(NbdDiskTest, OnePieceThatFailsFailsTheRequest) {
  const std::string fault = path("fault");
  // The disk's second half cannot be written.
  const std::string file = make_file("image", 32 * mib);
  const Nbdkit server = serve({"eval", "get_size=echo 33554432", "can_flush=exit 0", "flush=exit 0",
                               "pread=exit 1", "can_write=exit 0",
                               "pwrite=if [ $4 -ge 16777216 ]; then echo ENOSPC full >&2; exit 1; "
                               "fi; cat >/dev/null"});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  const Buffer data = filled(24 * mib, 1);
  EXPECT_EQ(write(*disk, 0, data.span().first(16 * mib)), 0);
  EXPECT_EQ(write(*disk, 0, data.span()), ENOSPC);
}

TEST_F(NbdDiskTest, AFailedFlushMakesEveryLaterOneFail) {
  const std::string fault = path("fault");
  const std::string file = make_file("image", mib);
  const Nbdkit server = serve(eval_with_flush_fault(file, mib, fault));
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  const Buffer data = filled(4096, 1);
  EXPECT_EQ(write(*disk, 0, data.span()), 0);
  EXPECT_EQ(flush(*disk), 0);
  touch(fault);
  EXPECT_EQ(flush(*disk), EIO);
  std::filesystem::remove(fault);
  EXPECT_EQ(flush(*disk), EIO);
  EXPECT_EQ(write(*disk, 0, data.span()), 0);
  EXPECT_EQ(flush(*disk), EIO);
  EXPECT_EQ(flush(*open(server)), 0);
}

TEST_F(NbdDiskTest, AFailedFuaWriteMakesEveryLaterFlushFail) {
  const std::string fault = path("fault");
  const Nbdkit server = serve({"--filter=error", "memory", "1M", "error-pwrite=EIO",
                               "error-pwrite-rate=100%", "error-file=" + fault});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  const Buffer data = filled(4096, 1);
  touch(fault);
  EXPECT_EQ(write(*disk, 0, data.span(), true), EIO);
  std::filesystem::remove(fault);
  EXPECT_EQ(write(*disk, 0, data.span()), 0);
  EXPECT_EQ(flush(*disk), EIO);
}

TEST_F(NbdDiskTest, ASlowServerDelaysItsRequestsAndNothingElse) {
  const Nbdkit server = serve({"--filter=delay", "memory", "1M", "wdelay=300ms"});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  const Buffer data = filled(4096, 1);
  Buffer seen(4096);
  const auto began = std::chrono::steady_clock::now();
  const auto written = start([&](auto done) { disk->write(0, data.span(), false, done); });
  EXPECT_EQ(read(*disk, 8192, seen.span()), 0);
  EXPECT_FALSE(written->answer) << "the read waited for the write";
  ASSERT_TRUE(run_until([&] { return written->answer.has_value(); }));
  EXPECT_EQ(*written->answer, 0);
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(300));
}

TEST_F(NbdDiskTest, ASilentServerLeavesOperationsOutstandingUntilItSpeaks) {
  Nbdkit server = serve({"memory", "64M"});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  const Buffer data = filled(32 * mib, 1);  // more than the socket takes
  server.freeze();
  const auto written = start([&](auto done) { disk->write(0, data.span(), false, done); });
  const auto flushed = start([&](auto done) { disk->flush(done); });
  run_for(std::chrono::milliseconds(300));
  EXPECT_FALSE(written->answer);
  EXPECT_FALSE(flushed->answer);
  server.thaw();
  ASSERT_TRUE(run_until([&] { return written->answer && flushed->answer; }));
  EXPECT_EQ(*written->answer, 0);
  EXPECT_EQ(*flushed->answer, 0);
  Buffer seen(32 * mib);
  EXPECT_EQ(read(*disk, 0, seen.span()), 0);
  EXPECT_TRUE(equal(seen.span(), data.span()));
}

TEST_F(NbdDiskTest, ALostServerFailsAllThatIsOutstandingAndAllThatFollows) {
  Nbdkit server = serve({"memory", "64M"});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  const Buffer data = filled(16 * mib, 1);
  Buffer seen(4096);
  server.freeze();
  std::vector<std::shared_ptr<Pending>> outstanding;
  for (std::uint64_t i = 0; i < 4; ++i)
    outstanding.push_back(
        start([&](auto done) { disk->write(i * 16 * mib, data.span(), i == 2, done); }));
  outstanding.push_back(start([&](auto done) { disk->read(0, seen.span(), done); }));
  outstanding.push_back(start([&](auto done) { disk->flush(done); }));
  server.kill();
  ASSERT_TRUE(run_until([&] {
    return std::ranges::all_of(outstanding, [](const auto& p) { return p->answer.has_value(); });
  }));
  for (const auto& p : outstanding)
    EXPECT_EQ(*p->answer, EIO);
  server.start();  // it does not help: nobody knows what it still has
  EXPECT_EQ(write(*disk, 0, data.span()), EIO);
  EXPECT_EQ(read(*disk, 0, seen.span()), EIO);
  EXPECT_EQ(zero(*disk, 0, 4096, true), EIO);
  EXPECT_EQ(flush(*disk), EIO);
}

TEST_F(NbdDiskTest, AServerLostWhileIdleIsFoundLost) {
  Nbdkit server = serve({"memory", "1M"});
  const auto disk = open(server);
  ASSERT_TRUE(disk);
  server.kill();
  EXPECT_EQ(flush(*disk), EIO);
  Buffer seen(4096);
  EXPECT_EQ(read(*disk, 0, seen.span()), EIO);
}

TEST_F(NbdDiskTest, WhatIsInFlightWhenTheDiskGoesIsFinished) {
  const Nbdkit server = serve({"--filter=delay", "memory", "1M", "wdelay=100ms"});
  auto disk = open(server);
  ASSERT_TRUE(disk);
  const Buffer data = filled(4096, 1);
  const auto written = start([&](auto done) { disk->write(0, data.span(), true, done); });
  disk.reset();
  ASSERT_TRUE(run_until([&] { return written->answer.has_value(); }));
  EXPECT_EQ(*written->answer, 0);
  io_.restart();
  io_.run_for(std::chrono::seconds(5));
  EXPECT_TRUE(io_.stopped()) << "the connection stays although nothing is in flight";
}

TEST_F(NbdDiskTest, AnExecutorThatEndsLeavesNothingBehind) {
  Nbdkit server = serve({"memory", "1M"});
  const Buffer data = filled(4096, 1);
  boost::asio::io_context own;
  auto disk = NbdDisk::open(own.get_executor(), server.uri());
  ASSERT_TRUE(disk);
  server.freeze();
  disk.value()->write(0, data.span(), false, [](int) { ADD_FAILURE() << "nobody runs this"; });
  disk.value()->flush([](int) { ADD_FAILURE() << "nobody runs this"; });
}  // the sanitizer looks at what is left

TEST_F(NbdDiskTest, WhatCannotBeUsedIsRefusedWithItsReason) {
  open_error("nbd+unix:///?socket=" + path("nobody"), ENOENT);
  {
    const Nbdkit server = serve({"memory", "1M"});
    NbdDiskOptions options;
    options.expected_size_bytes = 2 * mib;
    EXPECT_THAT(open_error(server.uri(), EINVAL, options), HasSubstr("2097152"));
    options.expected_size_bytes = mib;
    EXPECT_TRUE(open(server, options));
  }
  {
    const Nbdkit server = serve({"-r", "memory", "1M"});
    EXPECT_THAT(open_error(server.uri(), EROFS), HasSubstr("read-only"));
  }
  {
    const Nbdkit server = serve({"eval", "get_size=echo 1048576", "pread=exit 1", "pwrite=exit 1"});
    EXPECT_THAT(open_error(server.uri(), EINVAL), HasSubstr("flush"));
  }
  {
    const Nbdkit server =
        serve({"--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=8192",
               "blocksize-preferred=8192", "blocksize-maximum=32M"});
    EXPECT_THAT(open_error(server.uri(), EINVAL), HasSubstr("8192"));
  }
  {
    const Nbdkit server = serve({"memory", "1000"});
    EXPECT_THAT(open_error(server.uri(), EINVAL), HasSubstr("multiple"));
  }
  {
    Nbdkit server = serve({"memory", "1M"});
    server.freeze();
    NbdDiskOptions options;
    options.connect_time_max = std::chrono::milliseconds(200);
    EXPECT_THAT(open_error(server.uri(), ETIMEDOUT, options), HasSubstr("does not answer"));
  }
}

TEST_F(NbdDiskTest, ThePathChoosesTheStore) {
  auto loop = UringLoop::create(io_.get_executor());
  ASSERT_TRUE(loop);
  const Nbdkit server = serve({"memory", "1M"});
  const auto remote = open_replica_disk(loop.value(), server.uri(), mib);
  ASSERT_TRUE(remote) << remote.error().message;
  EXPECT_NE(dynamic_cast<NbdDisk*>(remote.value().get()), nullptr);
  const auto local = open_replica_disk(loop.value(), make_file("image", mib), mib);
  ASSERT_TRUE(local) << local.error().message;
  EXPECT_NE(dynamic_cast<FileDisk*>(local.value().get()), nullptr);
  EXPECT_FALSE(open_replica_disk(loop.value(), server.uri(), 2 * mib));
  EXPECT_FALSE(open_replica_disk(loop.value(), path("image"), 2 * mib));
}

}  // namespace
}  // namespace havm
