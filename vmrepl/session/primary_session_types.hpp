// The job of these types: what PrimarySession tells its engine, and what it keeps of each request,
// copy and check that is under way. Bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "vmrepl/base/clock.hpp"
#include "vmrepl/base/strong_types.hpp"
#include "vmrepl/nbd/block_service.hpp"
#include "vmrepl/resync/resync_core.hpp"
#include "vmrepl/resync/verify_core.hpp"
#include "vmrepl/session/resync_flow.hpp"
#include "vmrepl/session/session_types.hpp"

namespace havm {

struct PrimaryCallbacks {
  std::function<void(SessionState state, const std::string& reason)> session_changed;
  std::function<void()> synced;
  std::function<void(Epoch promised)> deposed;
  std::function<void(std::uint16_t disk, int error)> replica_failed;
  std::function<void(TimePoint sent)> granted;
  std::function<void(const ResyncProgress& progress)> progress;
  std::function<void()> drained;
  // Durable when they return (they never fail).
  std::function<void()> new_generation;
  std::function<void()> share_generation;
  // The partner's replica may hold what this one lacks: no session until a person has chosen.
  std::function<void(const std::string& reason)> split_brain;
  std::function<void()> verify_changed;
  // The partner answers too slowly, or does no longer.
  std::function<void(bool is_slow, const std::string& reason)> partner_slow;
  // A range that could not be read (`error`) was written again with the partner's data.
  std::function<void(std::uint16_t disk, std::uint64_t offset, std::uint32_t length, int error)>
      repaired;
};

struct PrimaryOp {
  std::unique_ptr<BlockRequest> request;  // of a guest; else a resync copy
  DiskRequest what;
  TimePoint sent;   // a guest write during a resync
  ResyncCopy copy;  // also the range of a verify's check
  std::uint64_t resync_number = 0;
  std::uint64_t sent_bytes = 0;  // of a copy: as data
  bool compares = false;         // only what differs is sent
  std::uint64_t verify_run = 0;  // of a check, or of the flush at the end
  VerifyCheck check;
  Buffer copy_data;
  bool used = false;
  bool is_sent = false;
  std::uint64_t frame_number = 0;
  std::uint64_t own_number = 0;  // of its local leg, for slow_
};

}  // namespace havm
