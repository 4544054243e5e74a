#include "vmrepl/disk/activity_log_store.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <boost/asio/post.hpp>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/buffer.hpp"
#include "vmrepl/disk/metadata_file.hpp"

namespace havm {
namespace {

const char* const what = "activity log";

LogContents contents_of(std::span<const std::byte> bytes, const MetadataIdentity& identity,
                        std::uint32_t slots) {
  LogContents contents;
  const auto header =
      decode_metadata_header(bytes.first(metadata_header_bytes), activity_log_magic);
  if (!header) {
    contents.damage = "its header " + header.error().message;
  } else {
    RebuiltLog log = rebuild_log(header.value(), bytes.subspan(metadata_header_bytes));
    contents.next_transaction = log.newest + 1;
    contents.table = std::move(log.table);
    contents.damage = std::move(log.damage);
    contents.newest_torn = log.newest_torn;
    if (header.value().identity != identity)
      contents.damage = "it belongs to another VM or to other disks";
    else if (header.value().units != slots && contents.damage.empty())
      contents.damage = "it has " + std::to_string(header.value().units) + " slots instead of " +
                        std::to_string(slots);
  }
  if (contents.damaged()) {
    contents.table.clear();
    contents.newest_torn = false;
  }
  contents.table.resize(slots);
  contents.next_transaction = std::max(contents.next_transaction, log_first_transaction);
  return contents;
}

}  // namespace

// What a write in flight shares with the store; it outlives the store for it.
struct ActivityLogStore::State : std::enable_shared_from_this<State> {
  std::shared_ptr<UringLoop> loop;
  MetadataFile file;
  MetadataIdentity identity;
  LogContents contents;
  std::uint64_t next_number = 1;
  int failed_errno = 0;
  bool writing = false;
  Buffer block{metadata_block_bytes};
  Done done;

  explicit State(MetadataFile f) : file(std::move(f)) {}

  void submit(std::uint64_t number);
  void written(std::uint64_t number, int result);
  Result<void> write_header(std::uint64_t first_transaction) const;
  Result<void> start_afresh() const;
};

Result<void> ActivityLogStore::create(const std::string& path, const MetadataIdentity& identity,
                                      std::uint32_t slots) {
  HAVM_ASSERT(slots > 0 && slots <= ActivityLogCore::slots_max, "a log has 1 to slots_max slots");
  BOOST_OUTCOME_TRY(const auto header, encode_metadata_header(make_log_header(
                                           identity, slots, log_first_transaction)));
  BOOST_OUTCOME_TRY(const MetadataFile file, MetadataFile::create_nameless(what, path));
  BOOST_OUTCOME_TRY(file.write(0, header));
  // No hole: a transaction must need no room and no change of the file's map.
  BOOST_OUTCOME_TRY(
      file.write(metadata_header_bytes, make_empty_ring(slots, log_first_transaction)));
  return file.publish();
}

Result<ActivityLogStore> ActivityLogStore::load(std::shared_ptr<UringLoop> loop,
                                                const std::string& path,
                                                const MetadataIdentity& identity,
                                                std::uint32_t slots) {
  HAVM_ASSERT(slots > 0 && slots <= ActivityLogCore::slots_max, "a log has 1 to slots_max slots");
  BOOST_OUTCOME_TRY(MetadataFile file, MetadataFile::open(what, path));
  std::vector<std::byte> bytes(log_file_bytes);
  BOOST_OUTCOME_TRY(file.read(0, bytes));
  // What was read may not be on the medium yet (an engine that died between write and sync): the
  // next transactions build upon it.
  BOOST_OUTCOME_TRY(file.sync());
  auto state = std::make_shared<State>(std::move(file));
  state->loop = std::move(loop);
  state->identity = identity;
  state->contents = contents_of(bytes, identity, slots);
  state->next_number = state->contents.next_transaction;
  return ActivityLogStore(std::move(state));
}

ActivityLogStore::ActivityLogStore(std::shared_ptr<State> state) : state_(std::move(state)) {}

const LogContents& ActivityLogStore::contents() const {
  return state_->contents;
}
const std::string& ActivityLogStore::path() const {
  return state_->file.path();
}

void ActivityLogStore::write(const LogTransaction& transaction, Done done) {
  HAVM_ASSERT(!state_->writing, "one transaction at a time");
  HAVM_ASSERT(!state_->contents.damaged(), "a damaged log must be reset before it is written");
  if (state_->failed_errno != 0) {
    boost::asio::post(state_->loop->executor(),
                      [done = std::move(done), error = state_->failed_errno] { done(error); });
    return;
  }
  HAVM_ASSERT(transaction.number == state_->next_number, "transactions are written in order");
  const auto bytes = encode_log_block(transaction);
  std::memcpy(state_->block.data(), bytes.data(), bytes.size());
  state_->writing = true;
  state_->done = std::move(done);
  state_->submit(transaction.number);
}

void ActivityLogStore::State::submit(std::uint64_t number) {
  UringOperation op;
  op.kind = UringOperation::Kind::write_dsync;
  op.fd = file.fd();
  op.offset = log_block_offset(number);
  op.length = metadata_block_bytes;
  op.data = block.data();
  op.done = [state = shared_from_this(), number](int result) { state->written(number, result); };
  loop->start(std::move(op));
}

void ActivityLogStore::State::written(std::uint64_t number, int result) {
  if (result == -EINTR || result == -EAGAIN) return submit(number);
  writing = false;
  if (result == static_cast<int>(metadata_block_bytes))
    next_number = number + 1;
  else
    failed_errno = result < 0 ? -result : ENOSPC;
  // The callback may write again, or end the store.
  const Done tell = std::exchange(done, nullptr);
  tell(failed_errno);
}

Result<void> ActivityLogStore::State::write_header(std::uint64_t first_transaction) const {
  const auto slots = static_cast<std::uint32_t>(contents.table.size());
  BOOST_OUTCOME_TRY(const auto header,
                    encode_metadata_header(make_log_header(identity, slots, first_transaction)));
  BOOST_OUTCOME_TRY(file.write(0, header));
  return file.sync();
}

// From damage to an empty log: the header says damage until every block is an empty log's, so that
// no part of the way can be taken for a log that holds less.
Result<void> ActivityLogStore::State::start_afresh() const {
  BOOST_OUTCOME_TRY(file.write(0, std::vector<std::byte>(metadata_header_bytes)));
  BOOST_OUTCOME_TRY(file.sync());
  const auto slots = static_cast<std::uint32_t>(contents.table.size());
  BOOST_OUTCOME_TRY(file.write(metadata_header_bytes, make_empty_ring(slots, next_number)));
  BOOST_OUTCOME_TRY(file.sync());
  return write_header(next_number);
}

Result<void> ActivityLogStore::reset() {
  HAVM_ASSERT(!state_->writing, "a log with a write in flight cannot be emptied");
  if (state_->failed_errno != 0)
    return Error(state_->file.name() + " failed before; restart the engine to read what is on disk",
                 state_->failed_errno);
  // An intact log is emptied by one sector of the header: from now on only newer transactions
  // count.
  const Result<void> emptied = state_->contents.damaged()
                                   ? state_->start_afresh()
                                   : state_->write_header(state_->next_number);
  if (!emptied) {
    state_->failed_errno = emptied.error().code != 0 ? emptied.error().code : EIO;
    return emptied;
  }
  LogContents empty;
  empty.table.resize(state_->contents.table.size());
  empty.next_transaction = state_->next_number;
  state_->contents = std::move(empty);
  return success();
}

Result<SeenLog> read_activity_log(const std::string& path) {
  BOOST_OUTCOME_TRY(const MetadataFile file, MetadataFile::open_to_look(what, path));
  std::vector<std::byte> bytes(log_file_bytes);
  BOOST_OUTCOME_TRY(file.read(0, bytes));
  const std::span<const std::byte> all(bytes);
  auto header = decode_metadata_header(all.first(metadata_header_bytes), activity_log_magic);
  if (!header) return Error("the header of " + file.name() + " " + header.error().message, EILSEQ);
  RebuiltLog log = rebuild_log(header.value(), all.subspan(metadata_header_bytes));
  return SeenLog{std::move(header).value(), std::move(log)};
}

}  // namespace havm
