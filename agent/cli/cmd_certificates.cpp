// cluster-init, node-join, certificate-info: the certificates of this node, without havmd.
#include <cerrno>
#include <cstdlib>
#include <ctime>

#include <sys/stat.h>

#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/text_table.hpp"
#include "agent/pki/bundle.hpp"
#include "agent/pki/identity_directory.hpp"
#include "agent/policy/cluster_config.hpp"
#include "agent/policy/own_node.hpp"
#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using nlohmann::json;

constexpr int default_days = 3650;

// What all of these commands start from.
struct Setting {
  ClusterConfig cluster;
  std::string node;
  IdentityDirectory directory;
  Validity validity;
  std::time_t now = 0;
};

std::string or_default(const CommandContext& context, const std::string& option,
                       const std::string& otherwise) {
  return context.has(option) ? context.get(option) : otherwise;
}

IdentityDirectory directory_for(const CommandContext& context) {
  return IdentityDirectory(or_default(context, "dir", IdentityDirectory::usual));
}

Result<int> days_for(const CommandContext& context) {
  if (!context.has("days")) return default_days;
  const std::string text = context.get("days");
  char* end = nullptr;
  const long days = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || days < 1 || days > days_max)
    return Error("Numeric value '" + text + "' for <days> option is malformed or out of range");
  return static_cast<int>(days);
}

Result<Setting> setting_for(const CommandContext& context) {
  BOOST_OUTCOME_TRY(const int days, days_for(context));
  BOOST_OUTCOME_TRY(auto cluster,
                    load_cluster_config(or_default(context, "config", "/etc/havm/cluster.json")));
  BOOST_OUTCOME_TRY(const std::string node, own_node(cluster, context.get("node")));
  const std::time_t now = ::time(nullptr);
  return Setting{std::move(cluster), node, directory_for(context), validity_of(days, now), now};
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words)
    text += (text.empty() ? "" : ", ") + word;
  return text;
}

Result<void> check_vacant(const CommandContext& context, const IdentityDirectory& directory) {
  const auto existing = directory.existing();
  if (existing.empty() || context.has("force")) return success();
  return Error("there are certificates in '" + directory.path() + "' already (" + joined(existing) +
                   "): say --force to replace them",
               EEXIST);
}

Result<void> check_absent(const CommandContext& context, const std::string& path) {
  struct stat st {};
  if (context.has("force") || ::lstat(path.c_str(), &st) != 0) return success();
  return Error("file '" + path + "' exists already: say --force to replace it", EEXIST);
}

// What was done, or with --dry-run would be.
void tell(CommandContext& context, const std::vector<std::string>& steps, json facts) {
  const bool dry = context.has("dry-run");
  if (context.wants_json()) {
    facts["changed"] = !dry;
    facts[dry ? "plan" : "done"] = steps;
    context.print_json(facts);
    return;
  }
  if (!dry) {
    for (const std::string& step : steps)
      context.terminal().print_extra(printable(step) + "\n");
    return;
  }
  std::string out = "Plan (nothing was changed):\n";
  for (std::size_t i = 0; i < steps.size(); ++i)
    out += " " + std::to_string(i + 1) + ". " + printable(steps[i]) + "\n";
  context.terminal().print(out);
}

TlsFiles all_called(const std::string& name) {
  return {name, name, name};
}

// ---- node-join -------------------------------------------------------------------------------

std::string names_of(const ClusterConfig& cluster) {
  std::vector<std::string> names;
  for (const auto& [name, node] : cluster.nodes)
    names.push_back(name);
  return joined(names);
}

Result<void> make_bundle_for(CommandContext& context, const Setting& setting) {
  const std::string member = context.get("member");
  const std::string& cluster = setting.cluster.name;
  if (setting.cluster.find_node(member) == nullptr)
    return Error("cluster '" + cluster + "' has no node '" + member + "': its nodes are " +
                 names_of(setting.cluster));
  const std::string path = or_default(context, "out", "havm-node-" + member + ".pem");
  BOOST_OUTCOME_TRY(check_absent(context, path));
  BOOST_OUTCOME_TRY(const auto authority, setting.directory.read_authority());
  BOOST_OUTCOME_TRY(const auto own, setting.directory.facts());
  if (own.cluster != cluster)
    return Error("the CA in '" + setting.directory.path() + "' is that of cluster '" + own.cluster +
                 "', not of '" + cluster + "'");
  BOOST_OUTCOME_TRY(const auto made, certify_node(authority, cluster, member, setting.validity));
  const IdentityPem carried{authority.certificate, made.certificate, made.key};
  const TlsFiles names{setting.directory.files().ca, "for node " + member, "for node " + member};
  BOOST_OUTCOME_TRY(const auto identity, parse_identity(carried, names));
  BOOST_OUTCOME_TRY(check_identity(identity, names, member, setting.now));
  json facts{{"cluster", cluster},
             {"node", member},
             {"file", path},
             {"valid_until", utc_text(end_of(*identity.certificate))}};
  if (!context.has("dry-run")) {
    BOOST_OUTCOME_TRY(install_files({{path, make_bundle(carried, cluster, member), true}}));
  }
  const std::string what = "certificate and key of node '" + member + "' ";
  tell(context,
       {context.has("dry-run")
            ? "write " + what + "to '" + path + "' (mode 0600)"
            : "Certificate and key of node '" + member + "' written to '" + path + "'",
        (context.has("dry-run") ? "then: carry it to node '" : "Carry it to node '") + member +
            "' (scp -p), run 'havm node-join --from FILE' there, and delete it on both"},
       std::move(facts));
  return success();
}

Result<void> install_bundle(CommandContext& context, const Setting& setting) {
  const std::string path = context.get("from");
  BOOST_OUTCOME_TRY(const std::string text, read_file(path));
  BOOST_OUTCOME_TRY(const auto carried, parse_bundle(text, path));
  const TlsFiles names = all_called(path);
  BOOST_OUTCOME_TRY(const auto identity, parse_identity(carried, names));
  BOOST_OUTCOME_TRY(check_identity(identity, names, setting.node, setting.now));
  const IdentityFacts facts = facts_of(identity);
  if (facts.cluster != setting.cluster.name)
    return Error(path + " is for cluster '" + facts.cluster + "', and this node is in cluster '" +
                 setting.cluster.name + "'");
  BOOST_OUTCOME_TRY(check_vacant(context, setting.directory));
  if (!context.has("dry-run")) {
    BOOST_OUTCOME_TRY(setting.directory.install(carried, ""));
  }
  const std::string where = "'" + setting.directory.path() + "'";
  tell(context,
       {context.has("dry-run")
            ? "install the certificates of node '" + setting.node + "' in " + where
            : "Node '" + setting.node + "' joined cluster '" + facts.cluster +
                  "': certificates installed in " + where},
       {{"cluster", facts.cluster},
        {"node", setting.node},
        {"directory", setting.directory.path()},
        {"valid_until", utc_text(facts.end)}});
  return success();
}

}  // namespace

Result<void> run_cluster_init(CommandContext& context) {
  BOOST_OUTCOME_TRY(const Setting setting, setting_for(context));
  BOOST_OUTCOME_TRY(check_vacant(context, setting.directory));
  const std::string& cluster = setting.cluster.name;
  if (!context.has("dry-run")) {
    BOOST_OUTCOME_TRY(const auto authority, make_authority(cluster, setting.validity));
    BOOST_OUTCOME_TRY(const auto own,
                      certify_node(authority, cluster, setting.node, setting.validity));
    BOOST_OUTCOME_TRY(setting.directory.install({authority.certificate, own.certificate, own.key},
                                                authority.key));
  }
  const std::string where = "'" + setting.directory.path() + "'";
  const std::string partner = setting.cluster.partner_of(setting.node).name;
  std::vector<std::string> steps;
  if (context.has("dry-run"))
    steps = {"make the CA of cluster '" + cluster + "' in " + where,
             "make the certificate of node '" + setting.node + "' there",
             "then: havm node-join " + partner};
  else
    steps = {"CA of cluster '" + cluster + "' and certificate of node '" + setting.node +
                 "' created in " + where,
             "Next: havm node-join " + partner};
  tell(context, steps,
       {{"cluster", cluster},
        {"node", setting.node},
        {"directory", setting.directory.path()},
        {"valid_until", utc_text(setting.validity.end)}});
  return success();
}

Result<void> run_node_join(CommandContext& context) {
  if (context.has("member") == context.has("from"))
    return Error("command 'node-join' requires either <member> or --from option");
  for (const char* other : {"out", "days"})
    if (context.has("from") && context.has(other))
      return Error(std::string("Options --from and --") + other + " are mutually exclusive");
  BOOST_OUTCOME_TRY(const Setting setting, setting_for(context));
  return context.has("from") ? install_bundle(context, setting) : make_bundle_for(context, setting);
}

Result<void> run_certificate_info(CommandContext& context) {
  const IdentityDirectory directory = directory_for(context);
  BOOST_OUTCOME_TRY(const auto facts, directory.facts());
  const auto checked = directory.check(facts.node, ::time(nullptr));
  const std::string problem = checked ? "" : checked.error().message;
  if (context.wants_json()) {
    context.print_json({{"node", facts.node},
                        {"cluster", facts.cluster},
                        {"issuer", facts.issuer},
                        {"valid_from", utc_text(facts.begin)},
                        {"valid_until", utc_text(facts.end)},
                        {"ca_valid_until", utc_text(facts.authority_end)},
                        {"fingerprint", facts.fingerprint},
                        {"has_ca_key", directory.has_authority_key()},
                        {"problem", checked ? json() : json(problem)}});
    return success();
  }
  std::string out = key_value_line("Node", facts.node);
  out += key_value_line("Cluster", facts.cluster);
  out += key_value_line("Issuer", facts.issuer);
  out += key_value_line("Valid from", utc_text(facts.begin));
  out += key_value_line("Valid until", utc_text(facts.end));
  out += key_value_line("CA valid until", utc_text(facts.authority_end));
  out += key_value_line("CA key", directory.has_authority_key() ? "on this node" : "not here");
  out += key_value_line("SHA-256", facts.fingerprint);
  out += key_value_line("State", checked ? "good" : problem);
  context.terminal().print(out);
  return success();
}

}  // namespace havm
