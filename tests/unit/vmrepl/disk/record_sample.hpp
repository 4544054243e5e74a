// The job of sample_record: a record in which no field has its default; of forged_slot: a slot with
// a right CRC around any payload.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "vmrepl/disk/record_codec.hpp"
#include "vmrepl/disk/record_types.hpp"
#include "vmrepl/wire/big_endian.hpp"
#include "vmrepl/wire/crc32c.hpp"

namespace havm {

inline Record sample_record(std::uint64_t epoch = 4, std::size_t disk_count = 2) {
  Record record;
  record.vm = "web1";
  record.vm_id = "f1b2c3d4-0000-4000-8000-000000000001";
  record.node = "a";
  for (std::size_t i = 0; i < disk_count; ++i)
    record.disks.push_back({"disk" + std::to_string(i), (i + 1) * 512});
  record.epoch = Epoch(epoch);
  record.promised_epoch = Epoch(epoch + 1);
  record.state = ReplicaState::uptodate;
  record.in_sync = InSync::self;
  record.grow_mark = Epoch(epoch + 1);
  record.partner_outdated = true;
  record.generation = 0x123456789abcdef0;
  record.generation_history = {3, 2, 1};
  record.base_generation = 2;
  record.generation_shared = false;
  record.owner_epoch = Epoch(epoch);
  record.lack_epoch = Epoch(1);
  record.damaged = true;
  record.boot_id = "11111111-2222-3333-4444-555555555555";
  record.clean = true;
  record.delegation = Epoch(epoch);
  return record;
}

inline std::vector<std::byte> forged_slot(const std::string& payload,
                                          std::uint32_t version = record_version,
                                          std::uint64_t slot_sequence = 1) {
  std::vector<std::byte> slot = encode_slot(sample_record(), slot_sequence).value();
  std::fill(slot.begin() + record_slot_header_bytes, slot.end(), std::byte{0});
  store_be(slot.data() + 8, version);
  store_be(slot.data() + 12, static_cast<std::uint32_t>(payload.size()));
  const auto bytes = std::as_bytes(std::span<const char>(payload));
  std::ranges::copy(bytes, slot.begin() + record_slot_header_bytes);
  store_be(slot.data() + 24, crc32c(bytes, crc32c(std::span<const std::byte>(slot).first(24))));
  return slot;
}

}  // namespace havm
