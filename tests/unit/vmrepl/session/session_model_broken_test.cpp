// The judge is judged: on the core that acks before the partner has the data it must find the loss.
#include <gtest/gtest.h>

#include "tests/unit/vmrepl/session/session_model.hpp"

namespace havm {
namespace {

TEST(SessionModelBrokenTest, TheModelConvictsTheBrokenCore) {
  unsigned convicted = 0;
  for (unsigned seed = 1; seed <= 20; ++seed) {
    const ModelOutcome outcome = run_session_model(seed, 4000);
    if (outcome.violation.find("was promised") != std::string::npos) ++convicted;
  }
  EXPECT_GE(convicted, 15u);
}

}  // namespace
}  // namespace havm
