// The job of ReplicaSetup: create and remove what one protected VM needs on this node: its
// directories, the engine's configuration and record, the partner's empty image files, the libvirt
// definition. Blocking (minutes at worst); run on a worker thread. Every step can be taken back;
// remove() takes back whatever is there.
#pragma once

#include <string>
#include <vector>

#include "agent/daemon/node_context.hpp"
#include "agent/policy/definition.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

enum class ReplicaOrigin { owner, partner };  // has the data, will get it

class ReplicaSetup {
 public:
  // Copies what it needs from `node`: may run on another thread than the daemon's.
  explicit ReplicaSetup(const NodeContext& node);

  // Partner only: why a replica of this VM cannot be created here; empty when it can.
  // What the engine is told at its start, made anew from definition and cluster file.
  Result<void> write_engine_config(const VmDefinition& definition) const;
  [[nodiscard]] std::vector<std::string> obstacles(const VmDefinition& definition) const;

  // Everything but the libvirt definition. `domain_xml` is kept for the day it is needed.
  Result<void> create(const VmDefinition& definition, const std::string& domain_xml,
                      ReplicaOrigin origin) const;
  // Only after the engine ended. Deletes the images of a replica that havm created (origin
  // partner).
  Result<void> remove(const VmDefinition& definition, ReplicaOrigin origin) const;

  // The definition with every replicated disk on its NBD socket.
  [[nodiscard]] Result<std::string> protected_xml(const std::string& xml,
                                                  const VmDefinition& definition) const;
  // … and back on its file, as it was written before.
  [[nodiscard]] Result<std::string> plain_xml(const std::string& xml,
                                              const VmDefinition& definition) const;

 private:
  Result<void> create_images(const VmDefinition& definition) const;
  Result<void> create_record(const VmDefinition& definition, ReplicaOrigin origin) const;

  ClusterConfig cluster_;
  std::string self_;
  std::string partner_;
  Paths paths_;
  Hypervisor* hypervisor_;
};

// True when nothing listens on this TCP port of the address.
bool port_is_free(const std::string& address, std::uint16_t port);

}  // namespace havm
