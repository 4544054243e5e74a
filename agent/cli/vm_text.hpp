// The job of these functions: words and colours for what havmd says of a VM (docs/protocol/api.md,
// "VM"). Pure.
#pragma once

#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "agent/cli/text_table.hpp"

namespace havm {

// 0–100 of a resync, nullopt when unknown.
std::optional<int> sync_percent(const nlohmann::json& vm);
// "in-sync", "resyncing 42 %", "paused 42 %", "queued 0 %", "in-sync, mismatch"
Cell sync_cell(const nlohmann::json& vm);
// "yes" or "no"; "-" for a VM that is not protected
Cell ready_cell(const nlohmann::json& vm);
Cell state_cell(const nlohmann::json& vm);
// "45 s", "12 min", "3 h 20 min", "2 d 5 h"
std::string time_left_text(double seconds);
// "resyncing 42 % (430.00 MiB of 1.00 GiB, 95.37 MiB/s, 6 s left)", "paused 42 % (…): backup runs"
std::string sync_detail(const nlohmann::json& vm);
// "Synchronising: [ 42 %] 95.37 MiB/s" as virsh shows a block copy
std::string sync_progress(const nlohmann::json& vm);
// "Verifying: [ 42 %] 95.37 MiB/s"
std::string verify_progress(const nlohmann::json& vm);
// "clean (2025-01-31T09:30:00.123Z)", "never", "mismatch: 64.00 KiB differ …"; with its progress
// while one runs
std::string verify_detail(const nlohmann::json& vm);
// The replicas are known to differ.
bool has_mismatch(const nlohmann::json& vm);
// The steps of a dry run.
std::string plan_text(const std::string& vm, const nlohmann::json& body);

}  // namespace havm
