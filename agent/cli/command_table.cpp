#include "agent/cli/command_table.hpp"

namespace havm {
namespace {

OptionSpec flag(std::string name, std::string help) {
  return {std::move(name), "", std::move(help), false, false};
}
OptionSpec option(std::string name, std::string value, std::string help, bool required = false) {
  return {std::move(name), std::move(value), std::move(help), false, required};
}
OptionSpec positional(std::string name, std::string value, std::string help, bool required = true) {
  return {std::move(name), std::move(value), std::move(help), true, required};
}
OptionSpec domain() {
  return positional("domain", "string", "domain name or uuid");
}
OptionSpec json() {
  return flag("json", "print JSON, for programs");
}
OptionSpec dry_run() {
  return flag("dry-run", "check everything, show the plan, change nothing");
}
OptionSpec timeout() {
  return option("timeout", "number", "give up after this many seconds (default: wait for ever)");
}

OptionSpec config() {
  return option("config", "file", "cluster configuration (default: /etc/havm/cluster.json)");
}
OptionSpec tls_dir() {
  return option("dir", "directory",
                "where this node keeps its certificates (default: /etc/havm/tls)");
}
OptionSpec own_name() {
  return option("node", "string", "name of this node (default: the host name)");
}
OptionSpec days() {
  return option("days", "number", "how long they are valid (default: 3650)");
}

using Table = std::vector<Command>;

void add_looking(Table& table) {
  table.push_back(
      {"list",
       "domain",
       "list protected domains",
       "Returns a list of the protected domains of the cluster, as this node sees them.",
       {flag("all", "also domains of this host that are not protected"),
        flag("name", "list domain names only"), flag("uuid", "list uuids only"),
        flag("title", "show domain titles too"), json()},
       run_list});
  table.push_back({"dominfo",
                   "domain",
                   "protection of a domain in detail",
                   "Returns everything this node knows about a domain.",
                   {domain(), json()},
                   run_dominfo});
  table.push_back({"domstate",
                   "domain",
                   "domain state",
                   "Returns the state of a domain, on whichever node it runs.",
                   {domain(), json()},
                   run_domstate});
  table.push_back({"explain",
                   "domain",
                   "what havm did with a domain, and why",
                   "Returns the decisions of this node about a domain, oldest first.",
                   {domain(), json()},
                   run_explain});
  table.push_back(
      {"wait",
       "domain",
       "wait until a domain is in a state",
       "Waits until the domain is in the state: running, paused, shut-off, in-sync, resyncing,\n"
       "    alone, ready (the partner could take over now) or protected.",
       {domain(), positional("state", "string", "state to wait for"), timeout(), json()},
       run_wait});
}

void add_protection(Table& table) {
  table.push_back(
      {"protect",
       "protection",
       "keep a domain available on two nodes",
       "Replicates the disks of a domain of this node to a peer, and restarts the domain there "
       "when this\n    node fails. The first synchronisation goes on in the background.",
       {domain(), option("peer", "string", "node that gets the second replica", true),
        option("policy", "file", "policy file (default: the default policy)"),
        flag("restart", "shut a running domain down and start it again"), dry_run(),
        flag("wait", "return when both replicas are in sync"), timeout(), json()},
       run_protect});
  table.push_back(
      {"unprotect",
       "protection",
       "make a protected domain an ordinary one again",
       "The domain stays, with the same data in plain files, on its owner. The other replica is "
       "given up.",
       {domain(), flag("restart", "shut a running domain down and start it again"), dry_run(),
        flag("yes", "do not ask on a terminal"), json()},
       run_unprotect});
  table.push_back(
      {"failover",
       "protection",
       "move a protected domain to its other node",
       "Stops the domain on its owner, if that still runs, and starts it on the other node.",
       {domain(), option("to", "string", "node to move to (default: the one that is not owner)"),
        dry_run(), flag("wait", "return when the domain runs there"), timeout(), json()},
       run_failover});
  table.push_back(
      {"resync-verify",
       "protection",
       "compare the two replicas of a domain",
       "Compares every block of the replicas, while the domain runs, and tells where they differ. "
       "With --repair\n    the owner's data is copied to the partner there: which of them is right "
       "is not known.",
       {domain(), flag("repair", "overwrite the partner's data where it differs"),
        flag("yes", "do not ask on a terminal"), flag("cancel", "end the one that is running"),
        flag("wait", "return when it has ended (the default)"),
        flag("no-wait", "return when it has begun"), timeout(), json()},
       run_resync_verify});
  table.push_back(
      {"resync-pause",
       "protection",
       "let the resync of a domain wait",
       "Nothing is copied to the partner's replica until resync-resume, also after restarts of the "
       "engine\n    and of the host. Guest writes still go to both nodes; the partner cannot take "
       "over meanwhile.",
       {domain(), option("reason", "string", "why; shown wherever the state is"), dry_run(),
        json()},
       run_resync_pause});
  table.push_back({"resync-resume",
                   "protection",
                   "let a paused resync go on",
                   "Takes back resync-pause.",
                   {domain(), dry_run(), json()},
                   run_resync_resume});
  table.push_back({"snapshot-list",
                   "protection",
                   "states of a domain's replicas kept from before a resync",
                   "Returns the files that hold what a replica was before a resync began to "
                   "overwrite it. They are\n    removed when the replica is in sync again.",
                   {domain(), json()},
                   run_snapshot_list});
}

void add_lifecycle(Table& table) {
  table.push_back({"start",
                   "domain",
                   "start a protected domain",
                   "Starts a protected domain on its owner.",
                   {domain(), json()},
                   run_start});
  table.push_back({"shutdown",
                   "domain",
                   "gracefully shutdown a protected domain",
                   "Asks the guest to shut down. It then stays off.",
                   {domain(), json()},
                   run_shutdown});
  table.push_back({"destroy",
                   "domain",
                   "destroy (stop) a protected domain",
                   "Forcefully stops a protected domain. Its data stays, and it stays off.",
                   {domain(), json()},
                   run_destroy});
}

void add_host(Table& table) {
  table.push_back({"node-list",
                   "host",
                   "list the nodes of the cluster",
                   "Returns the nodes, their links and the arbiter, as this node sees them.",
                   {json()},
                   run_node_list});
  table.push_back({"version",
                   "host",
                   "show version",
                   "Display the versions of havm, of havmd and of the hypervisor.",
                   {json()},
                   run_version});
  table.push_back({"cluster-validate",
                   "host",
                   "check a cluster configuration",
                   "Checks a cluster configuration without using it, and reports every mistake.",
                   {positional("file", "file", "cluster configuration, JSON"), json()},
                   run_cluster_validate});
  table.push_back({"policy-validate",
                   "host",
                   "check a policy file",
                   "Checks a policy without using it, and reports every mistake.",
                   {positional("file", "file", "policy, JSON"), json()},
                   run_policy_validate});
  table.push_back({"help",
                   "host",
                   "print help",
                   "Prints global help or the help of one command.",
                   {positional("command", "string", "name of a command", false)},
                   run_help});
}

void add_certificates(Table& table) {
  table.push_back(
      {"cluster-init",
       "certificates",
       "make the certificates of a new cluster",
       "Makes the certificate authority (CA) of the cluster and the certificate of this node. On "
       "one node\n    only; the other one joins with node-join.",
       {config(), own_name(), tls_dir(), days(),
        flag("force", "replace certificates that are there: every node must join again"), dry_run(),
        json()},
       run_cluster_init});
  table.push_back(
      {"node-join",
       "certificates",
       "let a node join the cluster, or take part in it",
       "With a node's name, where cluster-init ran: makes its certificate and writes it with its "
       "key "
       "to a\n    file. With --from, on that node: checks and installs what such a file carries.",
       {positional("member", "string", "node that shall join", false),
        option("out", "file", "file to write (default: ./havm-node-NAME.pem)"),
        option("from", "file", "file to install on this node"), config(), own_name(), tls_dir(),
        days(), flag("force", "replace what is there"), dry_run(), json()},
       run_node_join});
  table.push_back({"certificate-info",
                   "certificates",
                   "the certificates of this node",
                   "Returns what the certificates of this node say and whether they are any good.",
                   {tls_dir(), json()},
                   run_certificate_info});
}

Table make_table() {
  Table table;
  add_looking(table);
  add_protection(table);
  add_lifecycle(table);
  add_certificates(table);
  add_host(table);
  return table;
}

}  // namespace

const std::vector<CommandGroup>& command_groups() {
  static const std::vector<CommandGroup> groups{{"domain", "Protected Domains"},
                                                {"protection", "Protection"},
                                                {"certificates", "Certificates"},
                                                {"host", "Nodes and Configuration"}};
  return groups;
}

const std::vector<Command>& command_table() {
  static const Table table = make_table();
  return table;
}

const Command* find_command(const std::string& name) {
  for (const Command& command : command_table())
    if (command.name == name) return &command;
  return nullptr;
}

}  // namespace havm
