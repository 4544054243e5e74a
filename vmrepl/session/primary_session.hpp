// The job of PrimarySession: execute what PrimaryCore decides: the owner's local legs, the TCP
// session with the partner (connecting, again and again while wanted), the resync, and the lease
// requests. To the NBD servers it is one BlockService per disk.
//
// Guarantees
//  1. A guest request is completed exactly once, or dropped (ESHUTDOWN) after close() only.
//  2. It connects only while the own node is the whole in-sync set: it never re-attaches at an
//  epoch
//     at which the partner may be in-sync.
//  3. A connection that ends, or is silent for the session timeout, is the loss of the session at
//     once. That is about data; it proves nobody's death.
// Everything refers to things that outlive it. One thread: the engine's executor.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include "vmrepl/disk/replica_disk.hpp"
#include "vmrepl/nbd/block_service.hpp"
#include "vmrepl/resync/resync_core.hpp"
#include "vmrepl/session/engine_config.hpp"
#include "vmrepl/session/frame_connection.hpp"
#include "vmrepl/session/marks_driver.hpp"
#include "vmrepl/session/primary_core.hpp"
#include "vmrepl/session/primary_session_types.hpp"
#include "vmrepl/session/resync_flow.hpp"
#include "vmrepl/session/slow_partner_core.hpp"
#include "vmrepl/session/sync_verdict.hpp"
#include "vmrepl/session/verify_driver.hpp"
#include "vmrepl/transport/stream_opener.hpp"
#include "vmrepl/wire/repl_messages.hpp"

namespace havm {

class PrimarySession {
 public:
  // Between two attempts to connect.
  static constexpr std::chrono::milliseconds retry_delay{500};

  using Callbacks = PrimaryCallbacks;

  PrimarySession(boost::asio::any_io_executor executor, const EngineConfig& config,
                 std::string boot_id, std::vector<ReplicaDisk*> disks, const ReplicaRecord& record,
                 MarksDriver& marks, Callbacks callbacks);
  ~PrimarySession();

  // The owner role; the conditions are those of PrimaryCore.
  void open(Epoch epoch) { core_.open(epoch, record_.generation_due()); }
  void grow_prepare() { core_.grow_prepare(); }
  void grow_commit(Epoch epoch);
  void freeze() { core_.freeze(); }
  void shrink(Epoch epoch);
  void close();  // Callbacks::drained follows

  void connect();
  void disconnect(const std::string& reason);
  // The session ends, connecting goes on when wanted.
  void drop_session(const std::string& reason);
  // As drop_session, for a partner that is slow now; it is not connected to for a while. False, and
  // nothing is done: it is not.
  bool leave_slow_partner();

  // Only while live, and none is running.
  void start_verify(bool repair, std::uint64_t rate_bytes_per_s);
  void cancel_verify() { verify_.cancel(); }
  [[nodiscard]] const VerifyStatus& verify_status() const { return verify_.status(); }
  [[nodiscard]] bool partner_has_hashes() const { return peer_protocol_ >= protocol_hashes; }

  [[nodiscard]] BlockService& service(std::size_t disk);
  [[nodiscard]] const PrimaryCore& core() const { return core_; }
  [[nodiscard]] SessionState state() const;
  [[nodiscard]] const ResyncProgress& progress() const { return flow_.progress(); }
  // Who wants the resync to wait: this one, if there is one, and those to come.
  [[nodiscard]] ResyncFlow& flow() { return flow_; }
  [[nodiscard]] const ResyncFlow& flow() const { return flow_; }
  [[nodiscard]] std::optional<TimePoint> last_grant_sent() const { return last_grant_sent_; }
  [[nodiscard]] const std::string& peer_boot_id() const { return peer_boot_id_; }
  [[nodiscard]] Duration silence(TimePoint now) const;
  [[nodiscard]] const SlowPartnerCore& slow_partner() const { return slow_; }

 private:
  class Service;
  using Op = PrimaryOp;
  using Socket = boost::asio::ip::tcp::socket;

  void submit(std::uint16_t disk, std::unique_ptr<BlockRequest> request);
  OpId new_op();
  void free_op(OpId id);
  void pump();
  void execute(PrimaryAction& action);
  void send(const PrimaryAction& action);
  void send_text(const PrimaryAction& action);
  void submit_local(OpId id);
  void complete(OpId id, int error);
  void take_data(OpId id);  // primary_rescue.cpp
  void write_back(OpId id);
  void written_back(OpId id, int error);
  void local_done(OpId id, int error);
  void close_connection(const std::string& reason);
  // Resync.
  void begin_resync();
  void end_resync();
  void look_at_resync();
  void fill_window();
  void read_copy(OpId id);
  void copy_was_read(OpId id, int error);
  void send_copy(Op& op, const FrameHeader& frame);
  void copy_done(const PrimaryAction& action);
  void tell_progress(TimePoint now);
  // Verify (primary_verify.cpp).
  VerifyDriver make_verify();
  void verify_range(std::uint64_t run, const VerifyCheck& check, bool repair);
  void verify_flush(std::uint64_t run, std::uint16_t disk);
  void verify_done(const Op& op, const PrimaryAction& action);
  // Connecting.
  boost::asio::awaitable<void> connect_loop();
  boost::asio::awaitable<bool> connect_once(const ConfigEndpoint& endpoint);
  [[nodiscard]] bool may_connect() const;
  void attach(std::unique_ptr<ByteStream> stream);
  void warn_of_refusal(const std::string& reason);
  bool admit(const FrameHeader& header) const;
  void on_frame(const FrameHeader& header, const Buffer& payload);
  void on_hello_ok(const Buffer& payload);
  void on_hello_refused(const Buffer& payload);
  void on_sync_dirty(const FrameHeader& header, const Buffer& payload);
  void tick();
  void judge_partner(TimePoint now);  // primary_slow.cpp
  void note_sent(const FrameHeader& header);

  boost::asio::any_io_executor executor_;
  const EngineConfig& config_;
  std::string boot_id_;
  std::vector<ReplicaDisk*> disks_;
  const ReplicaRecord& record_;
  MarksDriver& marks_;
  Callbacks callbacks_;
  PrimaryCore core_;
  PrimaryCore::Actions actions_;
  bool pumping_ = false;
  std::vector<std::unique_ptr<Service>> services_;
  std::vector<Op> ops_;
  std::vector<OpId> free_;

  bool wanted_ = false;
  bool loop_running_ = false;
  StreamOpener opener_;
  std::shared_ptr<FrameConnection> connection_;
  SessionId session_;
  const Buffer* received_ = nullptr;  // payload of the frame that the core is being given
  std::string peer_boot_id_;
  std::string last_refusal_;
  std::uint64_t peer_protocol_ = protocol_before_generations;
  SyncMode sync_mode_ = SyncMode::full;
  boost::asio::steady_timer retry_;
  boost::asio::steady_timer timer_;

  std::optional<ResyncCore> resync_;
  std::uint64_t resync_number_ = 0;  // tells the copies of an abandoned resync from the present's
  ResyncFlow flow_;
  TimePoint progress_at_;  // last told
  SlowPartnerCore slow_;
  VerifyDriver verify_;
  std::optional<TimePoint> last_grant_sent_;
  // A lease request of the new epoch must not overtake the frame that announces it.
  bool epoch_unanswered_ = false;
};

}  // namespace havm
