#include "vmrepl/disk/bitmap_store.hpp"

#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include <boost/asio/post.hpp>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/base/buffer.hpp"
#include "vmrepl/disk/metadata_file.hpp"

namespace havm {
namespace {

const char* const what = "dirty bitmap";
constexpr std::size_t batch_blocks = 128;

// Of a block's words as they are on disk. 128 bits: two contents are not taken for one.
using Digest = XXH128_hash_t;
Digest digest_of(std::span<const std::uint64_t> words) {
  return XXH3_128bits(words.data(), words.size_bytes());
}

std::uint64_t block_offset(std::size_t place) {
  return metadata_header_bytes + place * metadata_block_bytes;
}

// The blocks of all disks, in the order of the file.
std::vector<BitmapBlock> layout_of(const std::vector<DiskIdentity>& disks) {
  std::vector<BitmapBlock> layout;
  layout.reserve(bitmap_blocks(disks));
  for (std::uint16_t disk = 0; disk < disks.size(); ++disk)
    for (std::uint32_t index = 0; index < bitmap_blocks(disks[disk].size_bytes); ++index)
      layout.push_back({disk, index});
  return layout;
}

std::vector<DirtyBitmap> clear_bitmaps(const std::vector<DiskIdentity>& disks) {
  std::vector<DirtyBitmap> bitmaps;
  for (const DiskIdentity& disk : disks)
    bitmaps.emplace_back(disk.size_bytes);
  return bitmaps;
}

Result<std::vector<std::byte>> read_header(const MetadataFile& file) {
  std::vector<std::byte> bytes(metadata_header_bytes);
  BOOST_OUTCOME_TRY(file.read(0, bytes));
  return bytes;
}

Result<void> read_blocks(const MetadataFile& file, const std::vector<BitmapBlock>& layout,
                         LoadedBitmaps& into) {
  std::vector<std::byte> piece(batch_blocks * metadata_block_bytes);
  for (std::size_t place = 0; place < layout.size(); ++place) {
    const std::size_t in_piece = place % batch_blocks;
    if (in_piece == 0) {
      BOOST_OUTCOME_TRY(file.read(block_offset(place), piece));
    }
    const BitmapBlock block = layout[place];
    const auto bytes = std::span<const std::byte>(piece).subspan(in_piece * metadata_block_bytes,
                                                                 metadata_block_bytes);
    if (!add_bitmap_block(block, bytes, into.bitmaps[block.disk]))
      into.damaged_blocks.push_back(block);
  }
  return success();
}

}  // namespace

// What a save in flight shares with the store; it outlives the store for it.
struct BitmapStore::State : std::enable_shared_from_this<State> {
  struct Save {
    std::vector<const DirtyBitmap*> bitmaps;
    std::vector<Done> done;
  };

  std::shared_ptr<UringLoop> loop;
  MetadataFile file;
  MetadataIdentity identity;
  std::vector<BitmapBlock> layout;
  std::vector<std::optional<Digest>> on_disk;  // nothing: not known to be intact
  bool header_on_disk = true;
  int failed_errno = 0;

  Save running;  // none when it has no `done`
  Save waiting;
  std::size_t next_place = 0;  // blocks before it were looked at by the running save
  bool cancelled = false;      // the store is gone: nobody keeps the bitmaps alive
  bool unsynced = false;       // something was written since the last sync
  std::size_t writes_in_flight = 0;
  Buffer batch;

  explicit State(MetadataFile f) : file(std::move(f)) {}

  void begin();
  void step();
  std::size_t write_batch();
  void write(std::uint64_t offset, std::byte* data, std::size_t length);
  void write_header();
  void sync();
  void end();
  void cancel();
};

Result<void> BitmapStore::create(const std::string& path, const std::string& vm_id,
                                 const std::vector<DiskIdentity>& disks, bool all_dirty) {
  BOOST_OUTCOME_TRY(const auto header,
                    encode_metadata_header(make_bitmap_header(MetadataIdentity{vm_id, disks})));
  BOOST_OUTCOME_TRY(const MetadataFile file, MetadataFile::create_nameless(what, path));
  BOOST_OUTCOME_TRY(file.write(0, header));
  const auto layout = layout_of(disks);
  std::vector<DirtyBitmap> bitmaps = clear_bitmaps(disks);
  if (all_dirty)
    for (DirtyBitmap& bitmap : bitmaps)
      bitmap.set_all();
  std::vector<std::byte> piece;
  for (std::size_t place = 0; place < layout.size(); ++place) {
    piece.resize(piece.size() + metadata_block_bytes);
    const BitmapBlock block = layout[place];
    encode_bitmap_block(block, words_of(bitmaps[block.disk], block.index),
                        std::span(piece).last(metadata_block_bytes));
    if (piece.size() < batch_blocks * metadata_block_bytes && place + 1 < layout.size()) continue;
    const std::size_t first = place + 1 - piece.size() / metadata_block_bytes;
    BOOST_OUTCOME_TRY(file.write(block_offset(first), piece));
    piece.clear();
  }
  return file.publish();
}

Result<OpenedBitmaps> BitmapStore::load(std::shared_ptr<UringLoop> loop, const std::string& path,
                                        const std::string& vm_id,
                                        const std::vector<DiskIdentity>& disks) {
  const MetadataIdentity identity{vm_id, disks};
  BOOST_OUTCOME_TRY(MetadataFile file, MetadataFile::open(what, path));
  BOOST_OUTCOME_TRY(const auto header_bytes, read_header(file));
  const auto header = decode_bitmap_header(header_bytes);
  const auto layout = layout_of(disks);
  LoadedBitmaps loaded;
  loaded.bitmaps = clear_bitmaps(disks);
  if (!header)
    loaded.header_damage = "its header " + header.error().message;
  else if (header.value().identity != identity)
    loaded.header_damage = "it belongs to another VM or to other disks";
  if (loaded.header_damage.empty()) {
    BOOST_OUTCOME_TRY(read_blocks(file, layout, loaded));
  } else {
    for (DirtyBitmap& bitmap : loaded.bitmaps)
      bitmap.set_all();
  }
  // What was read may not be on the medium yet (an engine that died between write and sync), and
  // what equals it will not be written again.
  BOOST_OUTCOME_TRY(file.sync());

  auto state = std::make_shared<State>(std::move(file));
  state->loop = std::move(loop);
  state->identity = identity;
  state->layout = layout;
  state->header_on_disk = loaded.header_damage.empty();
  state->on_disk.resize(layout.size());
  auto damaged = loaded.damaged_blocks.begin();
  for (std::size_t place = 0; place < layout.size() && state->header_on_disk; ++place) {
    const BitmapBlock block = layout[place];
    if (damaged != loaded.damaged_blocks.end() && *damaged == block)
      ++damaged;
    else
      state->on_disk[place] = digest_of(words_of(loaded.bitmaps[block.disk], block.index));
  }
  return OpenedBitmaps{BitmapStore(std::move(state)), std::move(loaded)};
}

BitmapStore::BitmapStore(std::shared_ptr<State> state) : state_(std::move(state)) {}
BitmapStore::~BitmapStore() {
  if (state_) state_->cancel();
}
BitmapStore& BitmapStore::operator=(BitmapStore&& other) noexcept {
  if (this == &other) return *this;
  if (state_) state_->cancel();
  state_ = std::move(other.state_);
  return *this;
}

bool BitmapStore::saving() const {
  return !state_->running.done.empty();
}
const std::string& BitmapStore::path() const {
  return state_->file.path();
}

void BitmapStore::save(const std::vector<const DirtyBitmap*>& bitmaps, Done done) {
  HAVM_ASSERT(bitmaps.size() == state_->identity.disks.size(), "one bitmap for each disk is saved");
  for (std::size_t i = 0; i < bitmaps.size(); ++i)
    HAVM_ASSERT(bitmaps[i]->disk_size_bytes() == state_->identity.disks[i].size_bytes,
                "a bitmap is saved for the disk that it is of");
  state_->waiting.bitmaps = bitmaps;
  state_->waiting.done.push_back(std::move(done));
  if (saving()) return;
  // Begun from the executor: all saves of this turn are one.
  if (state_->waiting.done.size() > 1) return;
  boost::asio::post(state_->loop->executor(), [state = state_] {
    if (state->running.done.empty()) state->begin();
  });
}

void BitmapStore::State::begin() {
  if (waiting.done.empty()) return;  // cancelled meanwhile
  running = std::exchange(waiting, {});
  next_place = 0;
  step();
}

// Each stage is entered when all writes of the one before have ended.
void BitmapStore::State::step() {
  if (failed_errno != 0 || cancelled) return end();
  if (write_batch() > 0) return;
  if (unsynced) return sync();
  if (!header_on_disk) return write_header();
  end();
}

// Writes the next blocks that differ; how many.
std::size_t BitmapStore::State::write_batch() {
  if (batch.empty()) batch = Buffer(batch_blocks * metadata_block_bytes);
  std::size_t filled = 0;
  std::size_t run_first = 0;  // in the batch: blocks from here on lie side by side in the file
  std::size_t run_place = 0;
  const auto write_run = [&] {
    if (filled > run_first)
      write(block_offset(run_place), batch.data() + run_first * metadata_block_bytes,
            (filled - run_first) * metadata_block_bytes);
    run_first = filled;
  };
  for (; next_place < layout.size() && filled < batch_blocks; ++next_place) {
    const BitmapBlock block = layout[next_place];
    const auto words = words_of(*running.bitmaps[block.disk], block.index);
    const Digest digest = digest_of(words);
    std::optional<Digest>& known = on_disk[next_place];
    if (known && XXH128_isEqual(*known, digest) != 0) {
      write_run();
      continue;
    }
    known = digest;
    if (filled == run_first) run_place = next_place;
    encode_bitmap_block(block, words,
                        batch.span().subspan(filled * metadata_block_bytes, metadata_block_bytes));
    ++filled;
  }
  write_run();
  return filled;
}

void BitmapStore::State::write(std::uint64_t offset, std::byte* data, std::size_t length) {
  unsynced = true;
  ++writes_in_flight;
  UringOperation op;
  op.kind = UringOperation::Kind::write;
  op.fd = file.fd();
  op.offset = offset;
  op.length = length;
  op.data = data;
  op.done = [state = shared_from_this(), offset, data, length](int result) {
    --state->writes_in_flight;
    if (result == -EINTR || result == -EAGAIN) return state->write(offset, data, length);
    if (result != static_cast<int>(length) && state->failed_errno == 0)
      state->failed_errno = result < 0 ? -result : ENOSPC;
    if (state->writes_in_flight == 0) state->step();
  };
  loop->start(std::move(op));
}

// Last of all: until it is there, everything counts as dirty.
void BitmapStore::State::write_header() {
  const auto bytes = encode_metadata_header(make_bitmap_header(identity));
  if (!bytes) {
    failed_errno = bytes.error().code;
    return end();
  }
  std::memcpy(batch.data(), bytes.value().data(), bytes.value().size());
  header_on_disk = true;
  write(0, batch.data(), metadata_header_bytes);
}

void BitmapStore::State::sync() {
  UringOperation op;
  op.kind = UringOperation::Kind::data_sync;
  op.fd = file.fd();
  op.done = [state = shared_from_this()](int result) {
    if (result == -EINTR || result == -EAGAIN) return state->sync();
    if (result < 0)
      state->failed_errno = -result;
    else
      state->unsynced = false;
    state->step();
  };
  loop->start(std::move(op));
}

void BitmapStore::State::end() {
  batch = Buffer();
  const Save ended = std::exchange(running, {});
  // The next one begins in a turn of its own, so that what the callbacks ask for is in it.
  if (!waiting.done.empty())
    boost::asio::post(loop->executor(), [state = shared_from_this()] {
      if (state->running.done.empty()) state->begin();
    });
  const int error = failed_errno == 0 && cancelled ? ECANCELED : failed_errno;
  for (const Done& done : ended.done)
    done(error);
}

void BitmapStore::State::cancel() {
  cancelled = true;
  Save never_begun = std::exchange(waiting, {});
  if (never_begun.done.empty()) return;
  boost::asio::post(loop->executor(), [done = std::move(never_begun.done)] {
    for (const Done& each : done)
      each(ECANCELED);
  });
}

Result<SeenBitmaps> read_bitmaps(const std::string& path) {
  BOOST_OUTCOME_TRY(const MetadataFile file, MetadataFile::open_to_look(what, path));
  BOOST_OUTCOME_TRY(const auto header_bytes, read_header(file));
  auto header = decode_bitmap_header(header_bytes);
  if (!header) return Error("the header of " + file.name() + " " + header.error().message, EILSEQ);
  BOOST_OUTCOME_TRY(const std::uint64_t size, file.size_bytes());
  if (size < block_offset(header.value().blocks))
    return Error(file.name() + " is cut short: all that it lacks counts as dirty", EILSEQ);
  LoadedBitmaps loaded;
  loaded.bitmaps = clear_bitmaps(header.value().identity.disks);
  BOOST_OUTCOME_TRY(read_blocks(file, layout_of(header.value().identity.disks), loaded));
  return SeenBitmaps{std::move(header).value(), std::move(loaded)};
}

}  // namespace havm
