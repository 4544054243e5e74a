// The job of SecondarySession: execute what SecondaryCore decides: listen for the owner's engine on
// every given address, receive its frames, apply them to this node's replica, answer.
//
// Guarantees
//  1. It listens from start() until it is destroyed, whatever the role of the engine is; the core
//     refuses what must be refused.
//  2. A session that hears nothing for the session timeout, or whose connection ends, is over.
//  3. Nothing of a connection is looked at before its stream is open: with TLS, before it has
//  proved
//     to be the partner's.
//  4. At most in_flight_bytes_max of payloads wait to be applied; then receiving pauses.
//  5. A resync begins, for core and owner, only when the target is prepared (Callbacks); leases are
//     granted meanwhile.
//  6. The record is persisted (by the callback, which never fails) before anything that depends on
//  it.
// Everything refers to things that outlive it. One thread: the engine's executor.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include "vmrepl/base/result.hpp"
#include "vmrepl/disk/replica_disk.hpp"
#include "vmrepl/session/engine_config.hpp"
#include "vmrepl/session/frame_connection.hpp"
#include "vmrepl/session/secondary_core.hpp"
#include "vmrepl/transport/stream_opener.hpp"

namespace havm {

class SecondarySession {
 public:
  static constexpr std::size_t connections_max = 16;
  static constexpr std::size_t welcomes_max = 64;  // handshakes under way
  static constexpr std::uint64_t in_flight_bytes_max = 256ULL << 20;
  static constexpr std::size_t requests_max = 65536;
  static constexpr std::uint64_t reading_bytes_max = 64ULL << 20;  // for the owner, at once
  // Of one disk's own dirty set; more are drawn together (cover_ranges).
  static constexpr std::size_t dirty_ranges_max = 65536;

  struct Callbacks {
    // Before the first byte of a resync; goes on when `ready` is called. `everything`: of the
    // disks.
    std::function<void(bool everything, std::function<void()> ready)> prepare_target;
    std::function<void()> persist;
    std::function<void()> forget_dirty;  // durable when it returns
    std::function<void()> changed;       // the session, or the record by it
    std::function<void(std::uint16_t disk, int error)> replica_failed;
    std::function<void(Epoch claimed)> deposed;  // by a hello of a higher epoch
    // The end of promise().
    std::function<void(const Result<void>& outcome)> promised;
  };

  SecondarySession(boost::asio::any_io_executor executor, const EngineConfig& config,
                   std::string boot_id, std::vector<ReplicaDisk*> disks, ReplicaRecord& record,
                   const ReplicaMarks& marks, Callbacks callbacks);

  // Binds and listens. Refused with a clear message when an address or port cannot be had.
  Result<void> start();

  void set_owner(bool is_owner) { core_.set_owner(is_owner); }
  void set_broken(const std::string& why) { core_.set_broken(why); }
  void promise(Epoch epoch);  // answered by Callbacks::promised
  void close_session(const std::string& reason);
  [[nodiscard]] const SecondaryCore& core() const { return core_; }
  // Since the owner was heard.
  [[nodiscard]] Duration silence(TimePoint now) const;

 private:
  struct Request {
    bool used = false;
    FrameHeader header;
    Buffer data;
  };
  struct FlushAll {
    std::size_t left = 0;
    int error = 0;
  };
  using Acceptor = boost::asio::ip::tcp::acceptor;

  Result<void> listen(const ConfigEndpoint& endpoint);
  void accept(Acceptor& acceptor);
  boost::asio::awaitable<void> welcome(boost::asio::ip::tcp::socket socket);
  void add_connection(std::unique_ptr<ByteStream> stream);
  void warn_of_refusal(const std::string& reason);
  void on_frame(ConnectionId id, const FrameHeader& header, Buffer payload);
  void on_sync_begin(ConnectionId id, const FrameHeader& header, const SyncBegin& begin);
  void on_hello(ConnectionId id, const Buffer& payload);
  void drop_connection(ConnectionId id);
  void pump();
  void execute(SecondaryAction& action);
  void send_hello_ok(ConnectionId id);
  void send_dirty(ConnectionId id);
  void refuse(ConnectionId id, const std::string& reason);
  void bye(ConnectionId id, const std::string& reason);
  void apply(OpId id);
  void hash(OpId id);
  void hash_done(OpId id, int error);
  void read(OpId id);  // secondary_rescue.cpp
  void start_reads();
  void read_done(OpId id, int error);
  void send_data(const SecondaryAction& action);
  void flush_all(std::uint64_t token);
  void local_done(OpId id, int error);
  OpId new_request();
  void free_request(OpId id);
  void limit_receiving();
  void tick();

  boost::asio::any_io_executor executor_;
  const EngineConfig& config_;
  std::vector<ReplicaDisk*> disks_;
  ReplicaRecord& record_;
  const ReplicaMarks& marks_;
  Callbacks callbacks_;
  std::string boot_id_;
  SecondaryCore core_;
  SecondaryCore::Actions actions_;
  bool pumping_ = false;
  std::vector<std::unique_ptr<Acceptor>> acceptors_;
  StreamOpener opener_;
  std::size_t welcomes_ = 0;
  std::string last_refusal_;
  std::map<ConnectionId, std::shared_ptr<FrameConnection>> connections_;
  std::map<ConnectionId, SessionId> hellos_;
  ConnectionId next_connection_ = 1;
  ConnectionId session_connection_ = 0;
  ConnectionId preparing_ = 0;  // whose sync_begin waits for the target
  std::vector<Request> requests_;
  std::vector<OpId> free_;
  std::map<std::uint64_t, FlushAll> flushes_;
  std::uint64_t in_flight_bytes_ = 0;
  std::deque<OpId> waiting_reads_;
  std::uint64_t reading_bytes_ = 0;
  boost::asio::steady_timer timer_;
};

}  // namespace havm
