#include "vmrepl/nbd/nbd_handshake_core.hpp"

#include <random>

#include <gtest/gtest.h>

#include "tests/unit/vmrepl/nbd/nbd_client_bytes.hpp"

namespace havm {
namespace {

using namespace nbd_test;

constexpr std::uint64_t size = 1U << 20;
constexpr std::uint16_t simple_flags = 0x16d;  // has, flush, fua, trim, write_zeroes, multi_conn
constexpr std::uint16_t structured_flags = 0x1ed;  // and df

NbdExport served() {
  return {"vda", size, 512};
}

struct Conversation {
  Bytes replies;
  NbdHandshakeOutcome outcome = NbdHandshakeOutcome::more;
  std::size_t consumed = 0;
  NbdAgreement agreement;
};

// Feeds `input` in pieces of `piece` bytes, as a socket might deliver it.
Conversation talk(const Bytes& input, std::size_t piece = SIZE_MAX) {
  NbdHandshakeCore core(served());
  Conversation result;
  std::size_t arrived = 0;
  while (arrived < input.size() && result.outcome == NbdHandshakeOutcome::more) {
    arrived += std::min(piece, input.size() - arrived);
    while (result.outcome == NbdHandshakeOutcome::more) {
      const std::span<const std::byte> rest(input.data() + result.consumed,
                                            arrived - result.consumed);
      const NbdHandshakeStep step = core.step(rest);
      EXPECT_LE(step.consumed, rest.size());
      result.consumed += step.consumed;
      result.replies = result.replies + step.replies;
      result.outcome = step.outcome;
      if (step.consumed == 0) {
        EXPECT_TRUE(step.outcome != NbdHandshakeOutcome::more || step.wanted > rest.size());
        break;
      }
    }
  }
  result.agreement = core.agreement();
  return result;
}

Bytes export_info(std::uint16_t flags) {
  NbdWriter writer;
  writer.integer(nbd_info_export).integer(size).integer(flags);
  return writer.bytes();
}

Bytes block_size_info() {
  NbdWriter writer;
  writer.integer(nbd_info_block_size).integer(std::uint32_t{512}).integer(std::uint32_t{4096});
  writer.integer(std::uint32_t{32U << 20});
  return writer.bytes();
}

Bytes context_reply(std::uint32_t option_type, std::uint32_t id) {
  NbdWriter writer;
  writer.integer(id).text("base:allocation");
  return option_reply(option_type, nbd_rep_meta_context, writer.bytes());
}

Bytes info_replies(std::uint32_t option_type, std::uint16_t flags) {
  return option_reply(option_type, nbd_rep_info, export_info(flags)) +
         option_reply(option_type, nbd_rep_info, block_size_info()) +
         option_reply(option_type, nbd_rep_ack);
}

// The type of the first option reply in `replies`.
std::uint32_t reply_type(const Bytes& replies) {
  if (replies.size() < 20) return 0;
  return load_big_endian<std::uint32_t>(replies.data() + 12);
}

TEST(NbdHandshake, GreetsWithFixedNewstyleAndNoZeroes) {
  NbdWriter expected;
  expected.text("NBDMAGICIHAVEOPT").integer(std::uint16_t{3});
  EXPECT_EQ(NbdHandshakeCore::greeting(), expected.bytes());
}

TEST(NbdHandshake, GoTellsSizeFlagsAndBlockSizes) {
  const auto result = talk(client_flags() + option(nbd_opt_go, info_data("vda")));
  EXPECT_EQ(result.outcome, NbdHandshakeOutcome::transmission);
  EXPECT_EQ(result.replies, info_replies(nbd_opt_go, simple_flags));
  EXPECT_FALSE(result.agreement.structured_replies);
  EXPECT_FALSE(result.agreement.block_status);
}

TEST(NbdHandshake, DontFragmentIsOfferedOnlyWithStructuredReplies) {
  const auto result =
      talk(client_flags() + option(nbd_opt_structured_reply) + option(nbd_opt_go, info_data("")));
  EXPECT_EQ(result.outcome, NbdHandshakeOutcome::transmission);
  EXPECT_EQ(result.replies, option_reply(nbd_opt_structured_reply, nbd_rep_ack) +
                                info_replies(nbd_opt_go, structured_flags));
  EXPECT_TRUE(result.agreement.structured_replies);
}

TEST(NbdHandshake, InfoDoesNotStartTransmissionAndTellsTheNameWhenAsked) {
  const auto result =
      talk(client_flags() + option(nbd_opt_info, info_data("", {nbd_info_name, 77})));
  NbdWriter name;
  name.integer(nbd_info_name).text("vda");
  EXPECT_EQ(result.outcome, NbdHandshakeOutcome::more);
  EXPECT_EQ(result.replies, option_reply(nbd_opt_info, nbd_rep_info, export_info(simple_flags)) +
                                option_reply(nbd_opt_info, nbd_rep_info, block_size_info()) +
                                option_reply(nbd_opt_info, nbd_rep_info, name.bytes()) +
                                option_reply(nbd_opt_info, nbd_rep_ack));
}

TEST(NbdHandshake, PreferredBlockIsNotBelowTheMinimum) {
  NbdHandshakeCore core({"x", size, 8192});
  ASSERT_EQ(core.step(client_flags()).consumed, 4U);
  const auto step = core.step(option(nbd_opt_go, info_data("x")));
  NbdWriter sizes;
  sizes.integer(nbd_info_block_size).integer(std::uint32_t{8192}).integer(std::uint32_t{8192});
  sizes.integer(std::uint32_t{32U << 20});
  const Bytes expected = option_reply(nbd_opt_go, nbd_rep_info, sizes.bytes());
  EXPECT_NE(std::search(step.replies.begin(), step.replies.end(), expected.begin(), expected.end()),
            step.replies.end());
}

TEST(NbdHandshake, ExportNamePadsOnlyWithoutNoZeroes) {
  NbdWriter expected;
  expected.integer(size).integer(simple_flags);
  const auto compact = talk(client_flags() + option(nbd_opt_export_name, text_bytes("vda")));
  EXPECT_EQ(compact.outcome, NbdHandshakeOutcome::transmission);
  EXPECT_EQ(compact.replies, expected.bytes());
  for (const std::uint32_t flags : {0U, 1U}) {
    const auto padded = talk(client_flags(flags) + option(nbd_opt_export_name));
    EXPECT_EQ(padded.outcome, NbdHandshakeOutcome::transmission);
    EXPECT_EQ(padded.replies, expected.bytes() + Bytes(124));
  }
}

TEST(NbdHandshake, ListNamesTheOneExport) {
  const auto result = talk(client_flags() + option(nbd_opt_list));
  NbdWriter entry;
  entry.integer(std::uint32_t{3}).text("vda");
  EXPECT_EQ(result.replies, option_reply(nbd_opt_list, nbd_rep_server, entry.bytes()) +
                                option_reply(nbd_opt_list, nbd_rep_ack));
}

TEST(NbdHandshake, AbortIsAcknowledgedAndEnds) {
  const auto result = talk(client_flags() + option(nbd_opt_abort));
  EXPECT_EQ(result.outcome, NbdHandshakeOutcome::ended);
  EXPECT_EQ(result.replies, option_reply(nbd_opt_abort, nbd_rep_ack));
}

TEST(NbdHandshake, BytesAfterTheLastMessageAreLeftAlone) {
  const Bytes handshake = client_flags() + option(nbd_opt_go, info_data("vda"));
  const auto result = talk(handshake + request(nbd_cmd_read, 1, 0, 512));
  EXPECT_EQ(result.outcome, NbdHandshakeOutcome::transmission);
  EXPECT_EQ(result.consumed, handshake.size());
}

struct ContextCase {
  const char* name;
  std::uint32_t type;
  std::vector<std::string> queries;
  bool told;
  bool selected;
};

class NbdMetaContext : public ::testing::TestWithParam<ContextCase> {};

TEST_P(NbdMetaContext, ListsAndSelects) {
  const ContextCase& c = GetParam();
  const auto result = talk(client_flags() + option(nbd_opt_structured_reply) +
                           option(c.type, context_data("vda", c.queries)));
  const std::uint32_t id = c.type == nbd_opt_list_meta_context ? 0 : nbd_base_allocation_id;
  EXPECT_EQ(result.replies, option_reply(nbd_opt_structured_reply, nbd_rep_ack) +
                                (c.told ? context_reply(c.type, id) : Bytes()) +
                                option_reply(c.type, nbd_rep_ack));
  EXPECT_EQ(result.agreement.block_status, c.selected);
}

INSTANTIATE_TEST_SUITE_P(
    Queries, NbdMetaContext,
    ::testing::Values(
        ContextCase{"list_all", nbd_opt_list_meta_context, {}, true, false},
        ContextCase{"list_base", nbd_opt_list_meta_context, {"base:"}, true, false},
        ContextCase{"list_exact", nbd_opt_list_meta_context, {"base:allocation"}, true, false},
        ContextCase{"list_other", nbd_opt_list_meta_context, {"qemu:"}, false, false},
        ContextCase{"set_exact", nbd_opt_set_meta_context, {"base:allocation"}, true, true},
        ContextCase{"set_among", nbd_opt_set_meta_context, {"x:y", "base:allocation"}, true, true},
        ContextCase{"set_wildcard", nbd_opt_set_meta_context, {"base:"}, false, false},
        ContextCase{"set_prefix", nbd_opt_set_meta_context, {"base:alloc"}, false, false},
        ContextCase{"set_empty_query", nbd_opt_set_meta_context, {""}, false, false},
        ContextCase{"set_none", nbd_opt_set_meta_context, {}, false, false}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(NbdHandshake, ALaterSetReplacesTheSelection) {
  const Bytes chosen = client_flags() + option(nbd_opt_structured_reply) +
                       option(nbd_opt_set_meta_context, context_data("", {"base:allocation"}));
  EXPECT_TRUE(talk(chosen).agreement.block_status);
  EXPECT_FALSE(talk(chosen + option(nbd_opt_set_meta_context, context_data("", {"x:y"})))
                   .agreement.block_status);
  EXPECT_FALSE(
      talk(chosen + option(nbd_opt_set_meta_context, text_bytes("junk"))).agreement.block_status);
  EXPECT_TRUE(talk(chosen + option(nbd_opt_list_meta_context, context_data("", {"x:y"})))
                  .agreement.block_status);
}

struct RefusalCase {
  const char* name;
  std::uint32_t type;
  Bytes data;
  std::uint32_t error;
};

class NbdRefusal : public ::testing::TestWithParam<RefusalCase> {};

TEST_P(NbdRefusal, IsAnsweredAndTheHagglingGoesOn) {
  const RefusalCase& c = GetParam();
  const auto refused = talk(client_flags() + option(c.type, c.data));
  EXPECT_EQ(refused.outcome, NbdHandshakeOutcome::more);
  EXPECT_EQ(reply_type(refused.replies), c.error);
  const auto after =
      talk(client_flags() + option(c.type, c.data) + option(nbd_opt_go, info_data("vda")));
  EXPECT_EQ(after.outcome, NbdHandshakeOutcome::transmission);
  EXPECT_EQ(after.replies, refused.replies + info_replies(nbd_opt_go, simple_flags));
}

Bytes claims(std::uint32_t name_length, std::uint16_t infos) {
  NbdWriter writer;
  writer.integer(name_length).integer(infos);
  return writer.bytes();
}

INSTANTIATE_TEST_SUITE_P(
    Options, NbdRefusal,
    ::testing::Values(
        RefusalCase{"starttls", nbd_opt_starttls, {}, nbd_rep_err_unsup},
        RefusalCase{"unknown", 4711, text_bytes("x"), nbd_rep_err_unsup},
        RefusalCase{"extended_headers", 11, {}, nbd_rep_err_unsup},
        RefusalCase{"list_with_data", nbd_opt_list, text_bytes("x"), nbd_rep_err_invalid},
        RefusalCase{"structured_with_data", nbd_opt_structured_reply, text_bytes("x"),
                    nbd_rep_err_invalid},
        RefusalCase{"go_empty", nbd_opt_go, {}, nbd_rep_err_invalid},
        RefusalCase{"go_unknown_name", nbd_opt_go, info_data("vdb"), nbd_rep_err_unknown},
        RefusalCase{"info_unknown_name", nbd_opt_info, info_data("vd"), nbd_rep_err_unknown},
        RefusalCase{"go_trailing", nbd_opt_go, info_data("vda") + text_bytes("x"),
                    nbd_rep_err_invalid},
        RefusalCase{"go_name_past_end", nbd_opt_go, claims(1000, 0), nbd_rep_err_invalid},
        RefusalCase{"go_name_huge", nbd_opt_go, claims(0xffffffff, 0), nbd_rep_err_invalid},
        RefusalCase{"go_infos_past_end", nbd_opt_go, claims(0, 65535), nbd_rep_err_invalid},
        RefusalCase{"go_long_name", nbd_opt_go, info_data(std::string(5000, 'n')),
                    nbd_rep_err_too_big},
        RefusalCase{"context_before_structured", nbd_opt_set_meta_context,
                    context_data("vda", {"base:allocation"}), nbd_rep_err_invalid}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(NbdHandshake, MalformedContextsAreRefused) {
  NbdWriter lying;
  lying.integer(std::uint32_t{0}).integer(std::uint32_t{0xffffffff});
  const std::vector<std::pair<Bytes, std::uint32_t>> cases{
      {{}, nbd_rep_err_invalid},
      {lying.bytes(), nbd_rep_err_invalid},
      {context_data("vda", {"base:allocation"}) + text_bytes("x"), nbd_rep_err_invalid},
      {context_data("other", {"base:allocation"}), nbd_rep_err_unknown},
      {context_data("", {std::string(5000, 'q')}), nbd_rep_err_too_big}};
  const Bytes ack = option_reply(nbd_opt_structured_reply, nbd_rep_ack);
  for (const auto& [data, error] : cases) {
    const auto result = talk(client_flags() + option(nbd_opt_structured_reply) +
                             option(nbd_opt_set_meta_context, data));
    ASSERT_GT(result.replies.size(), ack.size());
    const Bytes last(result.replies.begin() + static_cast<std::ptrdiff_t>(ack.size()),
                     result.replies.end());
    EXPECT_EQ(reply_type(last), error);
    EXPECT_FALSE(result.agreement.block_status);
  }
}

TEST(NbdHandshake, ViolationsEndIt) {
  NbdWriter wrong_magic;
  wrong_magic.integer(std::uint64_t{1}).integer(nbd_opt_list).integer(std::uint32_t{0});
  NbdWriter too_long;
  too_long.integer(nbd_option_magic).integer(nbd_opt_go).integer(nbd_option_bytes_max + 1);
  Bytes flood = client_flags();
  for (std::uint32_t i = 0; i <= nbd_options_max; ++i)
    flood = flood + option(nbd_opt_list);
  const std::vector<Bytes> cases{client_flags(4),
                                 client_flags(0x80000003),
                                 client_flags() + wrong_magic.bytes(),
                                 client_flags() + too_long.bytes(),
                                 client_flags() + option(nbd_opt_export_name, text_bytes("vdb")),
                                 client_flags(0) + option(nbd_opt_go, info_data("vda")),
                                 flood};
  for (const Bytes& input : cases) {
    const auto result = talk(input);
    EXPECT_EQ(result.outcome, NbdHandshakeOutcome::violation);
  }
}

TEST(NbdHandshake, TheLongestAllowedOptionIsRead) {
  const auto result = talk(client_flags() + option(4711, Bytes(nbd_option_bytes_max)));
  EXPECT_EQ(result.outcome, NbdHandshakeOutcome::more);
  EXPECT_EQ(reply_type(result.replies), nbd_rep_err_unsup);
}

Bytes full_conversation() {
  return client_flags() + option(nbd_opt_starttls) + option(nbd_opt_structured_reply) +
         option(nbd_opt_list) + option(nbd_opt_list_meta_context, context_data("vda", {})) +
         option(nbd_opt_set_meta_context, context_data("vda", {"base:allocation"})) +
         option(nbd_opt_info, info_data("vda", {nbd_info_name})) +
         option(nbd_opt_go, info_data("vda", {nbd_info_block_size}));
}

TEST(NbdHandshake, TruncatedAnywhereItWaitsForMore) {
  const Bytes whole = full_conversation();
  const Conversation complete = talk(whole);
  ASSERT_EQ(complete.outcome, NbdHandshakeOutcome::transmission);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const auto part =
        talk(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)));
    ASSERT_EQ(part.outcome, NbdHandshakeOutcome::more) << length;
    ASSERT_LE(part.replies.size(), complete.replies.size());
    ASSERT_TRUE(std::equal(part.replies.begin(), part.replies.end(), complete.replies.begin()));
  }
}

TEST(NbdHandshake, PiecesOfAnySizeGiveTheSameConversation) {
  const Bytes whole = full_conversation();
  const Conversation complete = talk(whole);
  for (std::size_t piece = 1; piece <= whole.size(); ++piece) {
    const auto result = talk(whole, piece);
    ASSERT_EQ(result.outcome, NbdHandshakeOutcome::transmission) << piece;
    ASSERT_EQ(result.replies, complete.replies) << piece;
    ASSERT_TRUE(result.agreement.block_status);
  }
}

TEST(NbdHandshake, DamagedInputNeverBreaksTheBounds) {
  std::mt19937 random(7);  // a fixed seed: a failure is repeatable
  const Bytes whole = full_conversation();
  for (int round = 0; round < 20'000; ++round) {
    Bytes damaged = whole;
    for (unsigned hits = 1 + random() % 4; hits > 0; --hits)
      damaged[random() % damaged.size()] = static_cast<std::byte>(random());
    damaged.resize(random() % (damaged.size() + 1));
    const auto result = talk(damaged, 1 + random() % 64);
    ASSERT_LE(result.consumed, damaged.size());
    ASSERT_LE(result.replies.size(), 64 * 1024U);
  }
}

}  // namespace
}  // namespace havm
