// The job of decide_resync_queue: say which VMs may resync now. A resync loads both nodes of a pair
// (one reads, the other writes), so those of both count, and each node decides for the VMs that it
// owns. Pure.
//
// Order: those that copy already, then the others; each by name. The first `slots` of this order
// may copy, so that
//  1. one that copies is not interrupted for one that waits;
//  2. two nodes that see the same decide the same; where reports were late and too many copy, both
//     hold back the same ones when the next reports are there;
//  3. with slots left and somebody waiting, somebody goes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace havm {

// A VM with something to copy, that is not paused.
struct QueuedResync {
  std::string vm;
  bool copies = false;  // nobody holds it
};

struct QueueVerdict {
  std::string vm;
  bool go = false;
  std::string reason;  // for waiting
};

// For each of `own`, in its order.
std::vector<QueueVerdict> decide_resync_queue(std::size_t slots,
                                              const std::vector<QueuedResync>& own,
                                              const std::vector<QueuedResync>& partners);

}  // namespace havm
