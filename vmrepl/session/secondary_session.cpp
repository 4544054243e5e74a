#include "vmrepl/session/secondary_session.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <boost/asio/post.hpp>
#include <netinet/in.h>
#include <spdlog/spdlog.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/spawn_supervised.hpp"
#include "vmrepl/bitmap/cover_ranges.hpp"
#include "vmrepl/wire/repl_messages.hpp"

namespace havm {
namespace {

using Tcp = boost::asio::ip::tcp;

HelloContext context_of(const EngineConfig& config) {
  HelloContext c;
  c.vm = config.vm;
  c.vm_id = config.vm_id;
  c.partner = config.partner;
  c.disks = config.disk_identities();
  c.lease = config.lease;
  return c;
}

Result<void> decode_sync(FrameType type, const Buffer& payload, SecondaryCore::Payload& into) {
  const std::string_view text = text_of(payload.span());
  if (type == FrameType::sync_begin) {
    BOOST_OUTCOME_TRY(into, decode_sync_begin(text));
  } else {
    BOOST_OUTCOME_TRY(into, decode_sync_end(text));
  }
  return success();
}

}  // namespace

SecondarySession::SecondarySession(boost::asio::any_io_executor executor,
                                   const EngineConfig& config, std::string boot_id,
                                   std::vector<ReplicaDisk*> disks, ReplicaRecord& record,
                                   const ReplicaMarks& marks, Callbacks callbacks)
    : executor_(std::move(executor)),
      config_(config),
      disks_(std::move(disks)),
      record_(record),
      marks_(marks),
      callbacks_(std::move(callbacks)),
      boot_id_(std::move(boot_id)),
      core_(context_of(config), record, marks, BootClock::now()),
      opener_(config.tls, config.node, config.partner, config.session_timeout),
      timer_(executor_) {}

// ---- listening -------------------------------------------------------------------------------

Result<void> SecondarySession::start() {
  for (const ConfigEndpoint& endpoint : config_.listen) {
    BOOST_OUTCOME_TRY(listen(endpoint));
  }
  for (const auto& acceptor : acceptors_)
    accept(*acceptor);
  tick();
  return success();
}

Result<void> SecondarySession::listen(const ConfigEndpoint& endpoint) {
  const Tcp::endpoint where(boost::asio::ip::make_address(endpoint.address), endpoint.port);
  auto acceptor = std::make_unique<Acceptor>(executor_);
  boost::system::error_code e;
  acceptor->open(where.protocol(), e);
  if (!e) acceptor->set_option(Acceptor::reuse_address(true), e);
  if (!e) {
    // The address may come up later than this engine does.
    const int on = 1;
    (void)::setsockopt(acceptor->native_handle(), IPPROTO_IP, IP_FREEBIND, &on, sizeof on);
    acceptor->bind(where, e);
  }
  // A full queue would drop the owner's SYN too, and cost it a second.
  if (!e) acceptor->listen(Tcp::socket::max_listen_connections, e);
  if (e)
    return Error("VM " + config_.vm + ": cannot listen for the partner on " + endpoint.address +
                     " port " + std::to_string(endpoint.port) + ": " + e.message() +
                     "; is another program using this port?",
                 e.value());
  acceptors_.push_back(std::move(acceptor));
  return success();
}

void SecondarySession::accept(Acceptor& acceptor) {
  acceptor.async_accept([this, &acceptor](const boost::system::error_code& e, Tcp::socket socket) {
    if (e == boost::asio::error::operation_aborted) return;
    if (e) {
      // nothing came of it
    } else if (welcomes_ < welcomes_max) {
      ++welcomes_;
      spawn_supervised(executor_, "welcome the owner of " + config_.vm, welcome(std::move(socket)));
    } else {
      warn_of_refusal("a connection was turned away: " + std::to_string(welcomes_) +
                      " are being opened");
    }
    accept(acceptor);
  });
}

boost::asio::awaitable<void> SecondarySession::welcome(Tcp::socket socket) {
  boost::system::error_code gone;
  const std::string from = socket.remote_endpoint(gone).address().to_string();
  auto stream = co_await opener_.open(std::move(socket), TlsRole::server);
  --welcomes_;
  if (stream) {
    last_refusal_.clear();
    add_connection(std::move(stream).value());
    co_return;
  }
  warn_of_refusal("a connection from " + from + " is refused, it is not one of node " +
                  config_.partner + ": " + stream.error().message);
}

// The other side tries again and again: said once, and again when the reason is another one.
void SecondarySession::warn_of_refusal(const std::string& reason) {
  if (reason != last_refusal_) spdlog::warn("vm={} {}", config_.vm, reason);
  last_refusal_ = reason;
}

void SecondarySession::add_connection(std::unique_ptr<ByteStream> stream) {
  if (connections_.size() >= connections_max) {
    spdlog::warn("vm={} a connection was turned away: {} are open already", config_.vm,
                 connections_.size());
    return;
  }
  const ConnectionId id = next_connection_++;
  auto connection = std::make_shared<FrameConnection>(std::move(stream), config_.session_timeout);
  FrameConnection::Handlers h;
  h.admit = [this, id](const FrameHeader& header) {
    return hellos_.contains(id) == (header.type != FrameType::hello);
  };
  h.on_frame = [this, id](const FrameHeader& header, Buffer payload) {
    on_frame(id, header, std::move(payload));
  };
  h.on_closed = [this, id](const std::string& reason) {
    spdlog::info("vm={} connection {} of the owner ended: {}", config_.vm, id, reason);
    connections_.erase(id);
    hellos_.erase(id);
    core_.closed(id, actions_);
    pump();
  };
  connections_.emplace(id, connection);
  connection->start(std::move(h));
}

// After this the connection's own handlers are not called any more.
void SecondarySession::drop_connection(ConnectionId id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  it->second->finish();
  connections_.erase(it);
  hellos_.erase(id);
}

Duration SecondarySession::silence(TimePoint now) const {
  const auto it = connections_.find(session_connection_);
  return it == connections_.end() ? Duration{0} : now - it->second->last_heard();
}

void SecondarySession::tick() {
  const TimePoint now = BootClock::now();
  std::vector<ConnectionId> silent;
  for (const auto& [id, connection] : connections_)
    if (now - connection->last_heard() > config_.session_timeout) silent.push_back(id);
  for (const ConnectionId id : silent) {
    spdlog::warn("vm={} nothing was heard on connection {} for {} ms: it is lost", config_.vm, id,
                 config_.session_timeout.count());
    connections_.at(id)->close();
    connections_.erase(id);
    hellos_.erase(id);
    core_.closed(id, actions_);
  }
  pump();
  timer_.expires_after(config_.keepalive);
  timer_.async_wait([this](const boost::system::error_code& e) {
    if (!e) tick();
  });
}

// ---- frames ----------------------------------------------------------------------------------

void SecondarySession::on_frame(ConnectionId id, const FrameHeader& header, Buffer payload) {
  if (!connections_.contains(id)) return;
  if (header.type == FrameType::hello) {
    hellos_.emplace(id, header.session);
    on_hello(id, payload);
    return;
  }
  OpId request = no_op;
  if (header.type == FrameType::write || header.type == FrameType::zero ||
      header.type == FrameType::flush || header.type == FrameType::hash ||
      header.type == FrameType::read) {
    request = new_request();
    requests_[request].header = header;
    requests_[request].data =
        header.type == FrameType::hash ? Buffer(header.length) : std::move(payload);
    in_flight_bytes_ += requests_[request].data.size();
    limit_receiving();
  }
  SecondaryCore::Payload what;
  if (header.type == FrameType::sync_begin || header.type == FrameType::sync_end) {
    const Result<void> decoded = decode_sync(header.type, payload, what);
    if (!decoded) {
      spdlog::warn("vm={} {}: {}", config_.vm, to_text(header.type), decoded.error().message);
      core_.closed(id, actions_);
      bye(id, decoded.error().message);
      pump();
      return;
    }
  }
  if (header.type == FrameType::bye) {
    const auto said = decode_bye(text_of(payload.span()));
    spdlog::info("vm={} the owner ends the session: {}", config_.vm,
                 said ? said.value().reason : said.error().message);
  }
  if (const auto* begin = std::get_if<SyncBegin>(&what)) {
    on_sync_begin(id, header, *begin);
    return;
  }
  core_.frame(id, header, request, BootClock::now(), actions_, what);
  pump();
}

// Nothing but keepalives comes behind it before it is answered. A connection that is gone by then
// is none of the core's any more.
void SecondarySession::on_sync_begin(ConnectionId id, const FrameHeader& header,
                                     const SyncBegin& begin) {
  if (preparing_ == id) {
    // Prepared twice, the second time after data came, the target would keep a mixture.
    core_.closed(id, actions_);
    bye(id, "a second resync began in one session");
    pump();
    return;
  }
  preparing_ = id;
  callbacks_.prepare_target(begin.mode != SyncMode::partial, [this, id, header, begin] {
    if (preparing_ == id) preparing_ = 0;
    core_.frame(id, header, no_op, BootClock::now(), actions_, begin);
    pump();
  });
}

void SecondarySession::on_hello(ConnectionId id, const Buffer& payload) {
  const auto hello = decode_hello(text_of(payload.span()));
  if (!hello) {
    refuse(id, hello.error().message);
    return;
  }
  core_.hello(id, hello.value(), actions_);
  pump();
}

void SecondarySession::send_hello_ok(ConnectionId id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  session_connection_ = id;
  HelloOk ok;
  static_cast<ReplicaHistory&>(ok) = summary_of(record_, true);
  ok.node = config_.node;
  ok.boot_id = boot_id_;
  ok.state = record_.record().state;
  ok.promised_epoch = record_.record().promised_epoch;
  ok.record_epoch = record_.record().epoch;
  ok.suspect = record_.suspect();
  FrameHeader h;
  h.type = FrameType::hello_ok;
  h.session = hellos_.at(id);
  h.sequence = Sequence(1);
  h.epoch = core_.session_epoch();
  it->second->send_text(h, encode(ok));
}

void SecondarySession::send_dirty(ConnectionId id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  FrameHeader h;
  h.type = FrameType::sync_dirty;
  h.session = hellos_.at(id);
  h.epoch = core_.session_epoch();
  for (std::uint16_t disk = 0; disk < disks_.size(); ++disk) {
    h.disk = disk;
    const auto ranges = cover_ranges(marks_.dirty(disk), dirty_ranges_max);
    for (std::size_t i = 0; i < ranges.size(); i += ranges_max) {
      const std::size_t count = std::min(ranges_max, ranges.size() - i);
      const auto bytes = encode_ranges(std::span(ranges).subspan(i, count));
      it->second->send_text(h, std::string(text_of(bytes)));
    }
  }
}

void SecondarySession::refuse(ConnectionId id, const std::string& reason) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  spdlog::info("vm={} a session is refused: {}", config_.vm, reason);
  HelloRefused refused;
  refused.reason = reason;
  refused.promised_epoch = core_.promised();
  FrameHeader h;
  h.type = FrameType::hello_refused;
  h.session = hellos_.at(id);
  h.sequence = Sequence(1);
  h.epoch = refused.promised_epoch;
  it->second->send_text(h, encode(refused));
  drop_connection(id);
}

void SecondarySession::bye(ConnectionId id, const std::string& reason) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  spdlog::info("vm={} connection {} of the owner is closed: {}", config_.vm, id, reason);
  Bye message;
  message.reason = reason;
  FrameHeader h;
  h.type = FrameType::bye;
  h.session = hellos_.at(id);
  it->second->send_text(h, encode(message));
  drop_connection(id);
}

// ---- what the core decided -------------------------------------------------------------------

void SecondarySession::promise(Epoch epoch) {
  core_.promise(epoch, actions_);
  pump();
}

void SecondarySession::close_session(const std::string& reason) {
  core_.close_session(reason, actions_);
  pump();
}

// Events that come while actions are executed append theirs behind; nothing is nested.
void SecondarySession::pump() {
  if (pumping_) return;
  pumping_ = true;
  for (std::size_t i = 0; i < actions_.size(); ++i) {
    SecondaryAction action = std::move(actions_[i]);
    execute(action);
  }
  actions_.clear();
  pumping_ = false;
}

void SecondarySession::execute(SecondaryAction& action) {
  switch (action.kind) {
    case SecondaryAction::Kind::persist:
      return callbacks_.persist();
    case SecondaryAction::Kind::send:
      if (action.frame.type == FrameType::data) return send_data(action);
      if (const auto it = connections_.find(action.connection); it != connections_.end()) {
        if (action.frame.type == FrameType::lease_grant)
          it->second->send_urgent(action.frame);
        else if (action.frame.type == FrameType::hash_ok)
          it->second->send_text(action.frame, std::string(text_of(encode_hashes(action.hashes))));
        else
          it->second->send(action.frame, {});
      }
      return;
    case SecondaryAction::Kind::send_hello_ok:
      return send_hello_ok(action.connection);
    case SecondaryAction::Kind::send_dirty:
      return send_dirty(action.connection);
    case SecondaryAction::Kind::forget_dirty:
      return callbacks_.forget_dirty();
    case SecondaryAction::Kind::refuse:
      return refuse(action.connection, action.text);
    case SecondaryAction::Kind::close:
      return bye(action.connection, action.text);
    case SecondaryAction::Kind::apply:
      return apply(action.id);
    case SecondaryAction::Kind::hash:
      return hash(action.id);
    case SecondaryAction::Kind::read:
      return read(action.id);
    case SecondaryAction::Kind::drop:
      return free_request(action.id);
    case SecondaryAction::Kind::flush_disk:
      return disks_[action.disk]->flush(
          [this, id = action.id](int error) { local_done(id, error); });
    case SecondaryAction::Kind::flush_all:
      return flush_all(action.token);
    case SecondaryAction::Kind::promised:
      return callbacks_.promised(success());
    case SecondaryAction::Kind::promise_failed:
      if (action.error != 0)
        return callbacks_.promised(
            errno_error("VM " + config_.vm + ": flushing the replica failed", action.error));
      return callbacks_.promised(Error("VM " + config_.vm + ": " + action.text));
    case SecondaryAction::Kind::session_changed:
      return callbacks_.changed();
    case SecondaryAction::Kind::replica_failed:
      return callbacks_.replica_failed(action.disk, action.error);
    case SecondaryAction::Kind::deposed:
      return callbacks_.deposed(action.epoch);
  }
}

void SecondarySession::apply(OpId id) {
  Request& r = requests_[id];
  ReplicaDisk& disk = *disks_[r.header.disk];
  const FrameHeader& h = r.header;
  const std::uint64_t alignment = disk.alignment_bytes();
  if (h.offset % alignment != 0 || h.length % alignment != 0 ||
      (h.type == FrameType::write && h.length != r.data.size())) {
    spdlog::error("vm={} a write of {} bytes at {} does not fit a disk of {}-byte blocks",
                  config_.vm, h.length, h.offset, alignment);
    boost::asio::post(executor_, [this, id] { local_done(id, EINVAL); });
    return;
  }
  if (h.type == FrameType::write) {
    disk.write(h.offset, std::as_const(r.data).span(), h.fua,
               [this, id](int error) { local_done(id, error); });
    return;
  }
  disk.zero(h.offset, h.length, h.may_unmap, [this, id](int error) {
    const FrameHeader& header = requests_[id].header;
    if (error != 0 || !header.fua) return local_done(id, error);
    disks_[header.disk]->flush([this, id](int flushed) { local_done(id, flushed); });
  });
}

void SecondarySession::hash(OpId id) {
  Request& r = requests_[id];
  ReplicaDisk& disk = *disks_[r.header.disk];
  if (r.header.length % disk.alignment_bytes() != 0) {
    boost::asio::post(executor_, [this, id] { hash_done(id, EINVAL); });
    return;
  }
  disk.read(r.header.offset, r.data.span(), [this, id](int error) { hash_done(id, error); });
}

void SecondarySession::hash_done(OpId id, int error) {
  const Request& r = requests_[id];
  if (error != 0)
    spdlog::error("vm={} disk={} {} bytes at {} cannot be read for the owner's comparison: {}",
                  config_.vm, config_.disks[r.header.disk].name, r.header.length, r.header.offset,
                  std::strerror(error));
  auto hashes = error == 0 ? hash_grains(r.data.span()) : std::vector<GrainHash>();
  core_.hash_done(id, error, std::move(hashes), actions_);
  free_request(id);
  pump();
}

void SecondarySession::local_done(OpId id, int error) {
  core_.local_done(id, error, actions_);
  free_request(id);
  pump();
}

void SecondarySession::flush_all(std::uint64_t token) {
  flushes_[token].left = disks_.size();
  for (ReplicaDisk* disk : disks_) {
    disk->flush([this, token](int error) {
      FlushAll& f = flushes_.at(token);
      if (error != 0) f.error = error;
      if (--f.left > 0) return;
      const int outcome = f.error;
      flushes_.erase(token);
      core_.all_flushed(token, outcome, actions_);
      pump();
    });
  }
}

// ---- requests --------------------------------------------------------------------------------

OpId SecondarySession::new_request() {
  if (free_.empty()) {
    HAVM_ASSERT(requests_.size() < requests_max, "the owner has too many requests in flight");
    free_.push_back(static_cast<OpId>(requests_.size()));
    requests_.emplace_back();
  }
  const OpId id = free_.back();
  free_.pop_back();
  requests_[id].used = true;
  return id;
}

void SecondarySession::free_request(OpId id) {
  Request& r = requests_[id];
  HAVM_ASSERT(r.used, "a request was freed twice");
  in_flight_bytes_ -= r.data.size();
  r = Request{};
  free_.push_back(id);
  limit_receiving();
}

void SecondarySession::limit_receiving() {
  const bool full =
      in_flight_bytes_ > in_flight_bytes_max || requests_.size() - free_.size() > requests_max / 2;
  for (const auto& [id, connection] : connections_)
    connection->pause_receiving(full);
}

}  // namespace havm
