#include "vmrepl/disk/metadata_header.hpp"

#include <cerrno>
#include <cstring>
#include <utility>

#include <nlohmann/json.hpp>

#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"
#include "vmrepl/wire/json_fields.hpp"

namespace havm {
namespace {

using nlohmann::json;

constexpr std::size_t version_at = 8;
constexpr std::size_t length_at = 12;
constexpr std::size_t payload_crc_at = 16;
constexpr std::size_t units_at = 20;
constexpr std::size_t blocks_at = 24;
constexpr std::size_t first_at = 28;
constexpr std::size_t crc_at = 36;  // of all before it
constexpr std::size_t payload_at = 64;
constexpr std::size_t payload_bytes_max = metadata_header_bytes - payload_at;
constexpr std::size_t disks_max = 256;

std::string to_json(const MetadataIdentity& identity) {
  json disks = json::array();
  for (const DiskIdentity& disk : identity.disks)
    disks.push_back({{"name", disk.name}, {"size", disk.size_bytes}});
  return dump_json({{"vm_id", identity.vm_id}, {"disks", std::move(disks)}});
}

Result<MetadataIdentity> identity_from_json(std::string_view text) {
  BOOST_OUTCOME_TRY(const json object, parse_json_object(text, "identity"));
  JsonFields fields(object, "identity");
  MetadataIdentity identity;
  identity.vm_id = fields.text_not_empty("vm_id");
  for (const json& entry : fields.array("disks", disks_max)) {
    JsonFields disk(entry, "disk " + std::to_string(identity.disks.size()));
    DiskIdentity one{disk.text_not_empty("name"), disk.number("size")};
    BOOST_OUTCOME_TRY(disk.outcome());
    identity.disks.push_back(std::move(one));
  }
  BOOST_OUTCOME_TRY(fields.outcome());
  return identity;
}

}  // namespace

Result<std::vector<std::byte>> encode_metadata_header(const MetadataHeader& header) {
  const std::string payload = to_json(header.identity);
  if (payload.size() > payload_bytes_max)
    return Error("the identity of VM " + header.identity.vm_id + " does not fit into " +
                     std::to_string(payload_bytes_max) + " bytes: it has too many disks",
                 E2BIG);
  // What could not be read again must not be written.
  BOOST_OUTCOME_TRY(identity_from_json(payload));
  std::vector<std::byte> bytes(metadata_header_bytes);
  std::memcpy(bytes.data() + payload_at, payload.data(), payload.size());
  store_be(bytes.data(), header.magic);
  store_be(bytes.data() + version_at, metadata_version);
  store_be(bytes.data() + length_at, static_cast<std::uint32_t>(payload.size()));
  store_be(bytes.data() + payload_crc_at,
           crc32c(std::span<const std::byte>(bytes).subspan(payload_at, payload.size())));
  store_be(bytes.data() + units_at, header.units);
  store_be(bytes.data() + blocks_at, header.blocks);
  store_be(bytes.data() + first_at, header.first);
  store_be(bytes.data() + crc_at, crc32c(std::span<const std::byte>(bytes).first(crc_at)));
  return bytes;
}

Result<MetadataHeader> decode_metadata_header(std::span<const std::byte> bytes,
                                              std::uint64_t magic) {
  if (bytes.size() < metadata_header_bytes) return Error("is cut short", EILSEQ);
  if (load_be<std::uint64_t>(bytes.data()) != magic) return Error("has another magic", EILSEQ);
  if (load_be<std::uint32_t>(bytes.data() + crc_at) != crc32c(bytes.first(crc_at)))
    return Error("is torn or damaged", EILSEQ);
  const auto version = load_be<std::uint32_t>(bytes.data() + version_at);
  if (version != metadata_version)
    return Error("was written by another version of havm (format " + std::to_string(version) + ")",
                 EILSEQ);
  const auto length = load_be<std::uint32_t>(bytes.data() + length_at);
  if (length > payload_bytes_max) return Error("is intact but its contents are wrong", EILSEQ);
  const std::span<const std::byte> payload = bytes.subspan(payload_at, length);
  if (load_be<std::uint32_t>(bytes.data() + payload_crc_at) != crc32c(payload))
    return Error("is torn or damaged", EILSEQ);
  Result<MetadataIdentity> identity =
      identity_from_json({reinterpret_cast<const char*>(payload.data()), payload.size()});
  if (!identity)
    return Error("is intact but its contents are wrong: " + identity.error().message, EILSEQ);
  MetadataHeader header;
  header.magic = magic;
  header.identity = std::move(identity).value();
  header.units = load_be<std::uint32_t>(bytes.data() + units_at);
  header.blocks = load_be<std::uint32_t>(bytes.data() + blocks_at);
  header.first = load_be<std::uint64_t>(bytes.data() + first_at);
  return header;
}

}  // namespace havm
