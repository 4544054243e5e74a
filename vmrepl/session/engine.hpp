// The job of Engine: put the parts of havm-repl together: one VM's record, disks, NBD servers, both
// session sides, the guard and the control socket; and execute the commands of
// docs/protocol/engine-control.md on them, one at a time.
//
// Invariants
//  E1. The NBD sockets exist only while this engine is owner: the storage endpoint is the fence.
//  E2. A change of the record is durable before anything that depends on it is answered, sent or
//      opened. When the record cannot be written the process stops at once: what is on disk is not
//      known then, and only a new start can find out.
//  E3. It is owner or secondary, never both: a session is accepted only without the owner role, and
//      the role is taken only when nothing of a session is in flight any more.
// One thread: that of the io_context.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <nlohmann/json.hpp>

#include "vmrepl/control/control_server.hpp"
#include "vmrepl/disk/record_store.hpp"
#include "vmrepl/disk/replica_disk.hpp"
#include "vmrepl/disk/uring_loop.hpp"
#include "vmrepl/nbd/nbd_server.hpp"
#include "vmrepl/session/engine_config.hpp"
#include "vmrepl/session/guard_client.hpp"
#include "vmrepl/session/marks_driver.hpp"
#include "vmrepl/session/one_shot.hpp"
#include "vmrepl/session/primary_session.hpp"
#include "vmrepl/session/resync_pause_file.hpp"
#include "vmrepl/session/secondary_session.hpp"
#include "vmrepl/session/target_snapshot.hpp"

namespace havm {

class Engine {
 public:
  // Opens everything and listens; role none. `quit` is called when the engine has ended in order.
  static Result<std::unique_ptr<Engine>> start(boost::asio::io_context& io, EngineConfig config,
                                               std::function<void()> quit);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // As the command `quit`, for signals.
  void quit();

 private:
  using Json = nlohmann::json;
  using Outcome = Result<Json>;
  using Command = boost::asio::awaitable<Outcome> (Engine::*)(Json request);

  Engine(boost::asio::io_context& io, EngineConfig config, RecordStore store, std::string boot_id,
         std::function<void()> quit);
  Result<void> open_disks();
  Error distrust(const ConfigDisk& disk, const Error& error);
  Result<void> open_marks();
  void tell_transport() const;
  void make_sessions();
  void make_nbd_servers();

  // Commands (engine_commands.cpp).
  static Command find_command(const std::string& name);
  boost::asio::awaitable<void> execute(std::string cmd, Json request, ControlServer::Reply reply);
  boost::asio::awaitable<Outcome> do_status(Json request);
  boost::asio::awaitable<Outcome> do_promise(Json request);
  boost::asio::awaitable<Outcome> do_serve(Json request);
  boost::asio::awaitable<Outcome> do_connect(Json request);
  boost::asio::awaitable<Outcome> do_disconnect(Json request);
  boost::asio::awaitable<Outcome> do_grow_prepare(Json request);
  boost::asio::awaitable<Outcome> do_grow_commit(Json request);
  boost::asio::awaitable<Outcome> do_freeze(Json request);
  boost::asio::awaitable<Outcome> do_flush(Json request);
  boost::asio::awaitable<Outcome> do_shrink(Json request);
  boost::asio::awaitable<Outcome> do_stand_by(Json request);
  boost::asio::awaitable<Outcome> do_quit(Json request);
  boost::asio::awaitable<Outcome> do_leave_slow_partner(Json request);
  boost::asio::awaitable<Outcome> do_verify(Json request);  // engine_verify.cpp
  boost::asio::awaitable<Outcome> do_verify_cancel(Json request);
  // Only `known` arguments: a misspelt one must not be taken as absent.
  static Result<void> check_arguments(const Json& request,
                                      std::initializer_list<const char*> known);
  // Resyncs that wait (engine_resync.cpp).
  boost::asio::awaitable<Outcome> do_resync_pause(Json request);
  boost::asio::awaitable<Outcome> do_resync_resume(Json request);
  Result<void> load_pause();
  void forget_holds();
  void tell_resync();
  void settle_snapshot();
  Result<void> judge_serve(Epoch epoch) const;
  Result<void> need_owner(const char* cmd) const;
  Error refuse(const std::string& why) const;

  // Parts of them.
  boost::asio::awaitable<void> secondary_quiet();
  boost::asio::awaitable<void> primary_drained();
  boost::asio::awaitable<Result<void>> flush_replica();
  boost::asio::awaitable<void> finish_and_quit();
  boost::asio::awaitable<Result<void>> settle_marks();
  Result<void> open_nbd();
  void close_nbd();
  void persist();
  void begin_generation();
  void forget_dirty();
  [[noreturn]] void stop_at_once(const std::string& what, const std::string& why) const;

  // Status and events.
  [[nodiscard]] Json status() const;
  [[nodiscard]] Json session_json() const;
  [[nodiscard]] Json slow_json() const;
  [[nodiscard]] Json sync_json() const;
  [[nodiscard]] Json verify_json() const;  // null: none since the start
  [[nodiscard]] std::size_t clients() const;
  [[nodiscard]] bool is_owner() const { return primary_->core().is_open(); }
  void secondary_changed();
  void replica_failed(std::uint16_t disk, int error);
  void repaired(std::uint16_t disk, std::uint64_t offset, std::uint32_t length, int error);

  boost::asio::io_context& io_;
  EngineConfig config_;
  RecordStore store_;
  std::string boot_id_;
  ReplicaRecord record_;
  TimePoint started_;
  std::function<void()> quit_;
  std::shared_ptr<UringLoop> ring_;
  std::vector<std::unique_ptr<ReplicaDisk>> disks_;
  std::vector<std::string> disk_errors_;  // of each disk; empty: none
  std::vector<std::uint64_t> repaired_;   // of each disk: ranges, since the start
  std::unique_ptr<MarksDriver> marks_;
  ResyncPauseFile pause_file_;
  GuardClient guard_;
  std::unique_ptr<PrimarySession> primary_;
  std::unique_ptr<SecondarySession> secondary_;
  std::unique_ptr<TargetSnapshot> snapshot_;
  std::vector<std::unique_ptr<NbdServer>> nbd_;
  ControlServer control_;
  std::unique_ptr<OneShot<Result<void>>> promising_;
  Json last_secondary_event_;
  std::size_t last_clients_ = 0;
  bool quitting_ = false;
};

}  // namespace havm
