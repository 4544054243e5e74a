// The part of PrimarySession that finds the partner and keeps the connection.
#include <random>
#include <utility>

#include <boost/asio/connect.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

#include "vmrepl/base/spawn_supervised.hpp"
#include "vmrepl/session/primary_session.hpp"

namespace havm {
namespace {

using boost::asio::awaitable;
using boost::asio::redirect_error;
using boost::asio::use_awaitable;

SessionId random_session() {
  std::random_device device;
  std::uint64_t value = 0;
  while (value == 0)
    value = (std::uint64_t{device()} << 32) | device();
  return SessionId(value);
}

}  // namespace

void PrimarySession::connect() {
  wanted_ = true;
  retry_.cancel();
  if (loop_running_) return;
  loop_running_ = true;
  spawn_supervised(executor_, "connect to the partner of " + config_.vm, connect_loop());
  tick();
}

void PrimarySession::disconnect(const std::string& reason) {
  wanted_ = false;
  retry_.cancel();
  drop_session(reason);
}

void PrimarySession::drop_session(const std::string& reason) {
  if (connection_) close_connection(reason);
  core_.session_lost(reason, actions_);
  pump();
}

bool PrimarySession::may_connect() const {
  return wanted_ && core_.is_open() && !core_.partner_required() && !core_.failed() &&
         !connection_ && core_.state() == SessionState::none && slow_.may_connect(BootClock::now());
}

awaitable<void> PrimarySession::connect_loop() {
  while (wanted_) {
    for (std::size_t i = 0; i < config_.partner_addresses.size() && may_connect(); ++i)
      if (co_await connect_once(config_.partner_addresses[i])) break;
    if (!wanted_) break;
    retry_.expires_after(retry_delay);
    boost::system::error_code woken;
    co_await retry_.async_wait(redirect_error(use_awaitable, woken));
  }
  loop_running_ = false;
  timer_.cancel();
}

awaitable<bool> PrimarySession::connect_once(const ConfigEndpoint& endpoint) {
  using namespace boost::asio::experimental::awaitable_operators;
  const boost::asio::ip::tcp::endpoint where(boost::asio::ip::make_address(endpoint.address),
                                             endpoint.port);
  Socket socket(executor_);
  boost::asio::steady_timer deadline(executor_, config_.session_timeout);
  boost::system::error_code failed;
  boost::system::error_code late;
  co_await (socket.async_connect(where, redirect_error(use_awaitable, failed)) ||
            deadline.async_wait(redirect_error(use_awaitable, late)));
  if (failed || !socket.is_open() || !may_connect()) co_return false;
  boost::system::error_code unconnected;
  (void)socket.remote_endpoint(unconnected);
  if (unconnected) co_return false;
  auto stream = co_await opener_.open(std::move(socket), TlsRole::client);
  if (!stream) {
    warn_of_refusal("no connection to node " + config_.partner + " at " + endpoint.address +
                    " port " + std::to_string(endpoint.port) + ": " + stream.error().message);
    co_return false;
  }
  if (!may_connect()) co_return false;
  attach(std::move(stream).value());
  co_return true;
}

// It is tried again and again: said once, and again when the reason is another one.
void PrimarySession::warn_of_refusal(const std::string& reason) {
  if (reason != last_refusal_) spdlog::warn("vm={} {}", config_.vm, reason);
  last_refusal_ = reason;
}

void PrimarySession::attach(std::unique_ptr<ByteStream> stream) {
  session_ = random_session();
  peer_boot_id_.clear();
  connection_ = std::make_shared<FrameConnection>(std::move(stream), config_.session_timeout);
  epoch_unanswered_ = false;
  FrameConnection::Handlers h;
  h.admit = [this](const FrameHeader& header) { return admit(header); };
  h.on_frame = [this](const FrameHeader& header, Buffer payload) { on_frame(header, payload); };
  h.on_closed = [this](const std::string& reason) {
    // Before the answer to the hello this is the partner's refusal, or not our partner at all.
    if (core_.state() == SessionState::none)
      warn_of_refusal("node " + config_.partner + " at " + connection_->peer() +
                      " opened no session: " + reason +
                      (opener_.is_tls() ? "" : "; is the other side set to TLS?"));
    connection_.reset();
    core_.session_lost(reason, actions_);
    pump();
  };
  connection_->start(std::move(h));
  if (record_.record().generation == 0) callbacks_.new_generation();
  Hello hello;
  static_cast<ReplicaHistory&>(hello) = summary_of(record_, true);
  hello.vm = config_.vm;
  hello.vm_id = config_.vm_id;
  hello.node = config_.node;
  hello.boot_id = boot_id_;
  hello.epoch = core_.epoch();
  hello.session = session_;
  hello.lease = config_.lease;
  hello.disks = config_.disk_identities();
  hello.engine_version = HAVM_VERSION;
  FrameHeader header;
  header.type = FrameType::hello;
  header.session = session_;
  header.sequence = Sequence(1);
  header.epoch = core_.epoch();
  connection_->send_text(header, encode(hello));
}

bool PrimarySession::admit(const FrameHeader& header) const {
  switch (header.type) {
    case FrameType::hello_ok:
      return core_.state() == SessionState::none;
    case FrameType::hello_refused:
    case FrameType::bye:
      return true;
    case FrameType::ack:
    case FrameType::data:
    case FrameType::hash_ok:
    case FrameType::lease_grant:
    case FrameType::lease_refused:
    case FrameType::epoch_ok:
    case FrameType::sync_begin_ok:
    case FrameType::sync_end_ok:
    case FrameType::sync_dirty:
      return core_.state() != SessionState::none;
    case FrameType::hello:
    case FrameType::write:
    case FrameType::zero:
    case FrameType::flush:
    case FrameType::read:
    case FrameType::hash:
    case FrameType::lease_request:
    case FrameType::epoch:
    case FrameType::sync_begin:
    case FrameType::sync_end:
      return false;  // the owner's to send
  }
  return false;
}

void PrimarySession::on_frame(const FrameHeader& header, const Buffer& payload) {
  if (!connection_) return;
  if (header.type == FrameType::epoch_ok) epoch_unanswered_ = false;
  if (header.type == FrameType::hello_ok) {
    on_hello_ok(payload);
  } else if (header.type == FrameType::hello_refused) {
    on_hello_refused(payload);
  } else if (header.type == FrameType::sync_dirty) {
    on_sync_dirty(header, payload);
  } else if (header.type == FrameType::bye) {
    const auto bye = decode_bye(text_of(payload.span()));
    drop_session("the partner ended the session: " +
                 (bye ? bye.value().reason : bye.error().message));
  } else {
    const bool has_hashes = header.type == FrameType::hash_ok;
    if (header.type == FrameType::ack || header.type == FrameType::data || has_hashes)
      slow_.answered(header.sequence, BootClock::now());
    received_ = &payload;
    core_.frame(header, actions_,
                has_hashes ? decode_hashes(payload.span()) : std::vector<GrainHash>());
    pump();
    received_ = nullptr;
  }
}

void PrimarySession::on_hello_ok(const Buffer& payload) {
  const auto ok = decode_hello_ok(text_of(payload.span()));
  if (!ok) return drop_session(ok.error().message);
  if (ok.value().node != config_.partner)
    return drop_session("node " + ok.value().node + " answered, not the partner " +
                        config_.partner);
  // The world may have changed since the hello was sent: ask again rather than guess.
  if (ok.value().promised_epoch != core_.epoch() || !core_.is_open() || core_.partner_required())
    return drop_session("the partner accepted another epoch than the present one");
  const SyncVerdict verdict = decide_sync(summary_of(record_, true), summary_of(ok.value()), true);
  if (verdict.mode == SyncMode::refuse) {
    const bool is_new = verdict.reason != last_refusal_;
    last_refusal_ = verdict.reason;
    if (is_new && verdict.split_brain) callbacks_.split_brain(verdict.reason);
    return drop_session(verdict.reason);
  }
  peer_boot_id_ = ok.value().boot_id;
  peer_protocol_ = ok.value().protocol;
  sync_mode_ = peer_protocol_ >= protocol_generations ? verdict.mode : SyncMode::full;
  last_refusal_.clear();
  spdlog::info("vm={} epoch={} session open with {} at {} (replica {}, suspect {}); {} resync: {}",
               config_.vm, core_.epoch().value, config_.partner, connection_->peer(),
               to_text(ok.value().state), ok.value().suspect, to_text(sync_mode_), verdict.reason);
  core_.partner_serves_reads(peer_protocol_ >= protocol_reads);
  slow_.session_opened(BootClock::now());
  core_.session_opened(session_, sync_mode_ == SyncMode::full, actions_);
  core_.lease_due(BootClock::now(), actions_);
  pump();
}

void PrimarySession::on_hello_refused(const Buffer& payload) {
  const auto refused = decode_hello_refused(text_of(payload.span()));
  const std::string reason = "the partner refuses the session: " +
                             (refused ? refused.value().reason : refused.error().message);
  warn_of_refusal(reason);
  const bool is_deposed = refused && refused.value().promised_epoch > core_.epoch();
  // While the partner may be in-sync this holds all I/O. Alone the owner goes on: nobody can be
  // made owner from an in-sync set without him, so the promise was in vain.
  drop_session(reason);
  if (is_deposed) callbacks_.deposed(refused.value().promised_epoch);
}

void PrimarySession::on_sync_dirty(const FrameHeader& header, const Buffer& payload) {
  if (header.session != session_ || header.disk >= disks_.size())
    return drop_session("the partner told marks of a disk or session that there is not");
  const auto ranges = decode_ranges(payload.span(), disks_[header.disk]->size_bytes());
  if (!ranges) return drop_session(ranges.error().message);
  for (const ByteRange& r : ranges.value())
    core_.partner_dirty(header.disk, r.offset, r.length, actions_);
  pump();
}

void PrimarySession::close_connection(const std::string& reason) {
  if (!connection_) return;
  Bye bye;
  bye.reason = reason;
  FrameHeader header;
  header.type = FrameType::bye;
  header.session = session_;
  header.epoch = core_.epoch();
  connection_->send_text(header, encode(bye));
  connection_->finish();
  connection_.reset();
}

void PrimarySession::tick() {
  const TimePoint now = BootClock::now();
  if (connection_ && now - connection_->last_heard() > config_.session_timeout) {
    connection_->close();
    connection_.reset();
    core_.session_lost("nothing was heard from the partner for " +
                           std::to_string(config_.session_timeout.count()) + " ms",
                       actions_);
  }
  core_.lease_due(now, actions_);
  pump();
  judge_partner(now);
  timer_.expires_after(config_.keepalive);
  timer_.async_wait([this](const boost::system::error_code& e) {
    if (!e && loop_running_) tick();
  });
}

}  // namespace havm
