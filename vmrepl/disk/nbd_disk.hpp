// The job of NbdDisk: a ReplicaDisk on an export of an NBD server of this host, over a unix
// socket, by libnbd. So anything that speaks NBD can lie under a replica: another store, and tools
// that inject faults (design rule 17).
//
// Guarantees beside those of ReplicaDisk
//  1. Only open() blocks, for at most its connect_time_max. Later the socket is watched by the
//  executor;
//     no call waits for the server.
//  2. A lost connection is the loss of this replica: whatever is outstanding and every later
//     operation fails with EIO, for good. It never connects again by itself: nobody could say what
//     of the unflushed writes the returned server still has.
//  3. A server that does not answer is like a disk that hangs: operations stay outstanding, without
//     a limit of time here. Who waits for them decides what that means.
//  4. The server must be writable and offer flush; without FUA a flush after the write stands for
//     it, without write-zeroes zeroes are written.
//  5. extents() tells "all data", which is always true enough: the true answer needs a round trip.
// NBD has no lock on an export: that nobody else writes to it is up to who set the server up.
// Operations in flight when the disk is destroyed finish and call `done`; the connection stays
// until the last of them.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "vmrepl/disk/replica_disk.hpp"

namespace havm {

struct NbdDiskOptions {
  // Refuse an export of any other size, in bytes.
  std::optional<std::uint64_t> expected_size_bytes;
  // How long open() waits for the server.
  std::chrono::milliseconds connect_time_max = std::chrono::seconds(10);
};

class NbdDisk final : public ReplicaDisk {
 public:
  // Larger transfers are split; servers need not take more at once.
  static constexpr std::uint64_t transfer_bytes_max = std::uint64_t{8} << 20;

  // True for a path that names an export: nbd+unix:///EXPORT?socket=PATH
  static bool is_uri(std::string_view path);

  // Blocking. Errors say which export and why: no server, another size than expected, not writable,
  // no flush, blocks larger than 4096 bytes.
  static Result<std::unique_ptr<NbdDisk>> open(const boost::asio::any_io_executor& executor,
                                               const std::string& uri,
                                               const NbdDiskOptions& options = {});

  ~NbdDisk() override;
  NbdDisk(const NbdDisk&) = delete;
  NbdDisk& operator=(const NbdDisk&) = delete;

  [[nodiscard]] std::uint64_t size_bytes() const override;
  [[nodiscard]] std::uint32_t alignment_bytes() const override;
  void read(std::uint64_t offset, std::span<std::byte> into, Done done) override;
  void write(std::uint64_t offset, std::span<const std::byte> from, bool fua, Done done) override;
  void zero(std::uint64_t offset, std::uint64_t length, bool may_unmap, Done done) override;
  void flush(Done done) override;
  Result<std::vector<Extent>> extents(std::uint64_t offset, std::uint64_t length) override;

 private:
  class Link;
  explicit NbdDisk(std::shared_ptr<Link> link);

  std::shared_ptr<Link> link_;
};

}  // namespace havm
