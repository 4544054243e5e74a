// The job of these functions: files that a person hands to havm, read and checked on this side. An
// Error has one line for each mistake, each beginning with the name of the file.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "vmrepl/base/result.hpp"

namespace havm {

// The policy with every key, as havmd wants it.
Result<nlohmann::json> read_policy_file(const std::string& path);
Result<void> check_cluster_file(const std::string& path);

}  // namespace havm
