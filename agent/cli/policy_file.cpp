#include "agent/cli/policy_file.hpp"

#include "agent/policy/cluster_config.hpp"
#include "agent/policy/policy.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

Error lines_of(const std::string& path, const Findings& findings) {
  std::string text;
  for (const Finding& finding : findings.list())
    text += (text.empty() ? "" : "\n") + path + ": " + finding.text();
  return Error(text, EINVAL);
}

}  // namespace

Result<nlohmann::json> read_policy_file(const std::string& path) {
  BOOST_OUTCOME_TRY(const std::string text, read_file(path));
  Findings findings;
  const auto policy = parse_policy(text, findings);
  if (!policy) return lines_of(path, findings);
  return policy_to_json(*policy);
}

Result<void> check_cluster_file(const std::string& path) {
  BOOST_OUTCOME_TRY(const std::string text, read_file(path));
  Findings findings;
  if (!parse_cluster_config(text, findings)) return lines_of(path, findings);
  return success();
}

}  // namespace havm
