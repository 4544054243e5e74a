// The job of nbd_memory_server: serve a disk in memory, or a raw file, over NBD until SIGTERM or
// SIGINT, so that programs of others can judge the server in a process of its own.
#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <CLI/CLI.hpp>
#include <boost/asio/signal_set.hpp>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/vmrepl/nbd/memory_block_service.hpp"
#include "vmrepl/base/unique_fd.hpp"
#include "vmrepl/nbd/nbd_server.hpp"

namespace havm::nbd_test {
namespace {

// A raw file, each request done at once in submit().
class FileBlockService final : public BlockService {
 public:
  FileBlockService(const std::string& path, std::uint32_t alignment_bytes)
      : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)), alignment_bytes_(alignment_bytes) {
    struct stat file {};
    if (fd_.valid() && ::fstat(fd_.get(), &file) == 0)
      size_bytes_ = static_cast<std::uint64_t>(file.st_size);
  }

  bool opened() const { return fd_.valid(); }
  std::uint64_t size_bytes() const override { return size_bytes_; }
  std::uint32_t alignment_bytes() const override { return alignment_bytes_; }

  void submit(std::unique_ptr<BlockRequest> request) override {
    int error = apply(*request);
    if (error == 0 && (request->fua || request->op == BlockOp::flush)) error = sync();
    auto done = std::move(request->done);
    done(std::move(request), error);
  }

  Result<std::vector<Extent>> extents(std::uint64_t offset, std::uint64_t length) override {
    std::vector<Extent> found;
    const auto end = static_cast<off_t>(offset + length);
    for (auto at = static_cast<off_t>(offset); at < end;) {
      const off_t data = ::lseek(fd_.get(), at, SEEK_DATA);
      if (data < 0 && errno != ENXIO) return errno_error("cannot seek data", errno);
      const bool hole = data != at;
      const off_t stop = hole ? (data < 0 ? end : data) : ::lseek(fd_.get(), at, SEEK_HOLE);
      if (stop < 0) return errno_error("cannot seek a hole", errno);
      const off_t piece = std::min(stop, end) - at;
      found.push_back({static_cast<std::uint64_t>(at), static_cast<std::uint64_t>(piece), hole});
      at += piece;
    }
    return found;
  }

 private:
  int sync() { return ::fdatasync(fd_.get()) == 0 ? 0 : errno; }

  int apply(BlockRequest& request) {
    const auto offset = static_cast<off_t>(request.offset);
    const auto length = static_cast<off_t>(request.length);
    switch (request.op) {
      case BlockOp::read:
        return ::pread(fd_.get(), request.data.data(), request.length, offset) == length ? 0 : EIO;
      case BlockOp::write:
        return ::pwrite(fd_.get(), request.data.data(), request.length, offset) == length ? 0 : EIO;
      case BlockOp::flush:
        return 0;
      case BlockOp::trim:
        return zero(FALLOC_FL_PUNCH_HOLE, offset, length);
      case BlockOp::write_zeroes:
        return zero(request.may_unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, offset,
                    length);
    }
    return EINVAL;
  }

  int zero(int how, off_t offset, off_t length) {
    if (::fallocate(fd_.get(), how | FALLOC_FL_KEEP_SIZE, offset, length) == 0) return 0;
    if (errno != EOPNOTSUPP || how == FALLOC_FL_PUNCH_HOLE) return errno;
    // A filesystem without zero ranges: holes read as zeroes too.
    return zero(FALLOC_FL_PUNCH_HOLE, offset, length);
  }

  UniqueFd fd_;
  std::uint64_t size_bytes_ = 0;
  const std::uint32_t alignment_bytes_;
};

int serve(boost::asio::io_context& io, BlockService& service, const NbdServerOptions& options) {
  NbdServer server(io, service, options);
  if (const auto started = server.start(); !started) {
    std::fprintf(stderr, "nbd_memory_server: %s\n", started.error().message.c_str());
    return 1;
  }
  boost::asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](const boost::system::error_code&, int) { server.stop(); });
  io.run();
  return 0;
}

}  // namespace
}  // namespace havm::nbd_test

int main(int argc, char** argv) {
  using namespace havm::nbd_test;
  havm::NbdServerOptions options;
  options.label = "nbd_memory_server";
  std::uint64_t size_bytes = std::uint64_t{64} << 20;
  std::uint32_t alignment_bytes = 512;
  std::string file;
  bool shuffled = false;
  CLI::App app("Serves a disk in memory, or a raw file, over NBD");
  app.add_option("--socket", options.socket_path, "unix socket to make")->required();
  app.add_option("--export", options.export_name, "name of the export");
  app.add_option("--size", size_bytes, "size in bytes of the disk in memory");
  app.add_option("--alignment", alignment_bytes, "minimum block size in bytes");
  app.add_option("--file", file, "serve this raw file instead");
  app.add_flag("--shuffled", shuffled, "disk in memory: complete requests later, out of order");
  CLI11_PARSE(app, argc, argv);

  boost::asio::io_context io(1);
  if (file.empty()) {
    MemoryBlockService memory(io, size_bytes, alignment_bytes);
    if (shuffled) memory.completion = Completion::shuffled;
    return serve(io, memory, options);
  }
  FileBlockService service(file, alignment_bytes);
  if (!service.opened()) {
    std::fprintf(stderr, "nbd_memory_server: cannot open %s\n", file.c_str());
    return 1;
  }
  return serve(io, service, options);
}
