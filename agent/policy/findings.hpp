// The job of Findings: collect everything that is wrong with a document, so that a person mends it
// in one go. A finding is a JSON Pointer (RFC 6901; "" = the whole document) and a sentence that
// says what is expected there and what was found. Data and text only; any thread, one at a time.
#pragma once

#include <string>
#include <vector>

#include "vmrepl/base/result.hpp"

namespace havm {

struct Finding {
  std::string pointer;
  std::string message;
  bool operator==(const Finding&) const = default;

  // "/timing/lease: …"; without the pointer when it is the whole document.
  [[nodiscard]] std::string text() const;
};

class Findings {
 public:
  static constexpr std::size_t max_findings =
      100;  // further ones are dropped: enough to start with

  void add(std::string pointer, std::string message);
  // The same findings below another place: `prefix` goes in front of every pointer.
  void add_below(const std::string& prefix, const Findings& other);

  [[nodiscard]] bool empty() const { return list_.empty(); }
  [[nodiscard]] const std::vector<Finding>& list() const { return list_; }
  // In the order of their pointers, so that neighbours in the document stand together.
  void sort();
  // "<source>: <finding>; <finding>"
  [[nodiscard]] Error to_error(const std::string& source) const;

 private:
  std::vector<Finding> list_;
};

// `pointer` extended by one key, escaped as RFC 6901 wants.
std::string pointer_to(const std::string& pointer, const std::string& key);

}  // namespace havm
