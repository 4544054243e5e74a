// The job of SimEngine: one havm-repl of the torture runs: the production record transitions,
// marks, cores and verdicts on files that lose power, without threads, clock or sockets.
//
// What is mirrored, not run, because it lives in drivers: the order of actions and of events that
// come meanwhile (PrimarySession and SecondarySession: pump, send, fill_window, read_copy,
// on_hello_ok), the commands with what is durable before what (engine_commands.cpp), opening,
// saving and emptying of the marks (marks_driver.cpp, bitmap_store.cpp, activity_log_store.cpp),
// and the slot that is written next (record_store.cpp). Who changes those files changes this one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/torture/node_disk.hpp"
#include "tests/torture/surroundings.hpp"
#include "vmrepl/resync/resync_core.hpp"
#include "vmrepl/session/primary_core.hpp"
#include "vmrepl/session/secondary_core.hpp"

namespace havm::torture {

enum class EngineCommand : std::uint8_t { none, serve, promise, flush, stand_by, quit };

class SimEngine {
 public:
  SimEngine(Surroundings& world, int node, NodeDisk& disk, std::string boot_id,
            Recovered recovered);

  // Commands that wait: ask busy(), then last_succeeded(). The others end at once; they must be
  // possible (the agent looks first).
  void serve(Epoch epoch) { begin(EngineCommand::serve, epoch); }
  void promise(Epoch epoch);
  void flush();
  void stand_by() { begin(EngineCommand::stand_by, Epoch()); }
  void quit() { begin(EngineCommand::quit, Epoch()); }
  void connect() { wanted_ = true; }
  void grow_prepare();
  void grow_commit(Epoch epoch);
  void shrink(Epoch epoch);
  [[nodiscard]] bool busy() const { return command_ != EngineCommand::none; }
  [[nodiscard]] bool last_succeeded() const { return last_succeeded_; }
  [[nodiscard]] bool has_ended() const { return has_ended_; }

  // The guest's NBD clients.
  void submit(std::uint64_t guest_id, const DiskRequest& what, std::vector<std::uint64_t> values);

  // The network.
  [[nodiscard]] bool may_connect() const;
  void connected(ConnectionId link);  // as the dialer
  void receive(ConnectionId link, const Message& message);
  void closed(ConnectionId link);

  // Time.
  void tick(bool retire);
  [[nodiscard]] std::size_t io_waiting() const { return io_.size(); }
  void run_io(std::size_t index);
  void pump();

  [[nodiscard]] const ReplicaRecord& record() const { return record_; }
  [[nodiscard]] const PrimaryCore& primary() const { return *primary_; }
  [[nodiscard]] const SecondaryCore& secondary() const { return *secondary_; }
  [[nodiscard]] bool is_owner() const { return primary_->is_open(); }
  [[nodiscard]] SessionState session() const;
  [[nodiscard]] SyncMode sync_mode() const { return sync_mode_; }

 private:
  struct Op {
    DiskRequest what;
    std::uint64_t guest_id = 0;  // 0: a resync copy
    ResyncCopy copy;
    std::uint64_t resync_number = 0;
    bool compares = false;  // only what differs is sent
    bool verifies = false;
    Place place;
    std::vector<std::uint64_t> values;
  };
  struct Request {
    FrameHeader header;
    std::vector<std::uint64_t> values;
  };

  // sim_engine.cpp: commands, record, marks.
  void begin(EngineCommand command, Epoch epoch);
  void go_on();
  void go_on_serving();
  void go_on_standing_by();
  void go_on_quitting();
  void end_command(bool succeeded);
  [[nodiscard]] bool may_serve() const;
  void flush_replica(std::function<void()> done);
  void burn(const char* what);
  void persist();
  void write_metadata(CrashFile<Sector512>& file, std::size_t offset,
                      std::span<const std::byte> bytes);
  void begin_generation();
  void forget_dirty();
  void reset_log();
  void write_log(const LogTransaction& transaction);
  void save();
  void write_blocks();
  void block_written();
  void save_ended();
  void later(std::function<void()> io) { io_.push_back(std::move(io)); }

  // sim_engine_session.cpp: what the cores decide.
  void execute(const PrimaryAction& action);
  void execute(const SecondaryAction& action);
  void submit_local(OpId id);
  void send(const PrimaryAction& action);
  void complete(OpId id, int error);
  void read_copy(OpId id);
  void copy_done(const PrimaryAction& action);
  void begin_resync();
  void fill_window();
  void close_connection();
  void drop_session(const std::string& reason);
  void on_hello_ok(const Message& message);
  void on_sync_dirty(const Message& message);
  void apply(OpId id);
  void hash(OpId id);
  void verify();
  void send_hello_ok(ConnectionId link);
  void send_dirty(ConnectionId link);
  void refuse(ConnectionId link, const std::string& reason);
  void demand_durable(FrameType type);
  void flush_disk(std::uint16_t disk, std::function<void()> done);
  void write_sectors(std::uint16_t disk, Place place, std::vector<std::uint64_t> values, bool fua,
                     std::function<void()> done);
  OpId new_op();

  Surroundings& world_;
  int node_;
  NodeDisk& disk_;
  std::string boot_id_;
  ReplicaRecord record_;
  Record written_;  // the record on disk
  std::uint64_t slot_sequence_;
  unsigned newest_slot_;
  std::uint64_t next_transaction_;
  std::vector<std::optional<std::vector<std::byte>>> bitmap_blocks_;
  ReplicaMarks marks_;
  std::unique_ptr<PrimaryCore> primary_;
  std::unique_ptr<SecondaryCore> secondary_;
  PrimaryCore::Actions primary_actions_;
  SecondaryCore::Actions secondary_actions_;
  std::vector<std::function<void()>> io_;

  EngineCommand command_ = EngineCommand::none;
  Epoch command_epoch_;
  int command_stage_ = 0;
  bool last_succeeded_ = false;
  bool has_ended_ = false;
  bool log_in_flight_ = false;
  bool save_again_ = false;
  bool is_starved_ = false;  // the log has no room
  std::size_t blocks_in_flight_ = 0;

  bool wanted_ = false;
  std::optional<ConnectionId> link_;  // as owner
  SessionId session_;
  SyncMode sync_mode_ = SyncMode::full;
  std::map<OpId, Op> ops_;
  std::vector<OpId> free_ops_;
  OpId next_op_ = 0;
  std::optional<ResyncCore> resync_;
  std::uint64_t resync_number_ = 0;

  std::map<ConnectionId, SessionId> hellos_;
  std::map<OpId, Request> requests_;
  OpId next_request_ = 0;
};

}  // namespace havm::torture
