// The job of these helpers: say in one line which findings a document must produce.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "agent/policy/findings.hpp"

namespace havm {

inline void PrintTo(const Finding& finding, std::ostream* out) {
  *out << finding.text();
}

// "pointer: message" of every finding, for containers of matchers.
inline std::vector<std::string> texts(const Findings& findings) {
  std::vector<std::string> out;
  for (const Finding& finding : findings.list())
    out.push_back(finding.text());
  return out;
}

// A finding at exactly this pointer whose message contains `part`.
inline testing::Matcher<const Finding&> finding(const std::string& pointer,
                                                const std::string& part) {
  return testing::AllOf(testing::Field("pointer", &Finding::pointer, pointer),
                        testing::Field("message", &Finding::message, testing::HasSubstr(part)));
}

}  // namespace havm
