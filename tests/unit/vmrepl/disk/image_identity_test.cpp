// Another file in the place of an image.
#include "vmrepl/disk/image_identity.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/vfs.h>

#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

using testing::HasSubstr;

class ImageIdentityTest : public testing::Test {
 protected:
  ImageIdentityTest() {
    std::string name = std::string(HAVM_TEST_DIR) + "/scratch_XXXXXX";
    directory = ::mkdtemp(name.data());
    for (const NamedImage& image : images)
      put(image.path, "x");
  }
  ~ImageIdentityTest() override { std::filesystem::remove_all(directory); }

  static void put(const std::string& path, const std::string& content) {
    std::ofstream(path) << content;
  }
  // A new file with a name of its own first, so that it cannot get the old one's inode.
  void replace(const std::string& path) {
    put(path + ".new", "y");
    std::filesystem::rename(path + ".new", path);
  }
  std::string refused() {
    const auto checked = check_images(record, images);
    if (checked) {
      ADD_FAILURE() << "taken for the same file";
      return {};
    }
    EXPECT_EQ(checked.error().code, ESTALE);
    return checked.error().message;
  }

  std::string directory;
  const std::string record = directory + "/record";
  const std::vector<NamedImage> images{{"vda", directory + "/vda.raw"},
                                       {"v d b", directory + "/vdb.raw"}};
};

TEST_F(ImageIdentityTest, WritingIsNoChange) {
  ASSERT_TRUE(remember_images(record, images));
  EXPECT_TRUE(check_images(record, images));
  put(images[0].path, "something longer");
  std::filesystem::resize_file(images[1].path, 1 << 20);
  EXPECT_TRUE(check_images(record, images));
}

TEST_F(ImageIdentityTest, AReplacedFileIsNamedWithItsDisk) {
  ASSERT_TRUE(remember_images(record, images));
  replace(images[1].path);
  const std::string text = refused();
  EXPECT_THAT(text, HasSubstr("disk v d b"));
  EXPECT_THAT(text, HasSubstr(images[1].path));
  EXPECT_THAT(text, HasSubstr("--adopt-images"));
  ASSERT_TRUE(remember_images(record, images));
  EXPECT_TRUE(check_images(record, images));
}

TEST_F(ImageIdentityTest, WhereNothingIsRememberedNothingIsRefused) {
  EXPECT_TRUE(check_images(record, images));
  ASSERT_TRUE(remember_images(record, {images[0]}));
  replace(images[1].path);
  EXPECT_TRUE(check_images(record, images));
}

TEST_F(ImageIdentityTest, AMissingFileIsSaid) {
  ASSERT_TRUE(remember_images(record, images));
  std::filesystem::remove(images[0].path);
  const auto checked = check_images(record, images);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, ENOENT);
}

TEST_F(ImageIdentityTest, OfAnNbdExportAndADeviceNothingIsKnown) {
  EXPECT_EQ(identity_of_image("nbd+unix:///x?socket=/y").value(), std::nullopt);
  EXPECT_EQ(identity_of_image("/dev/null").value(), std::nullopt);
}

TEST_F(ImageIdentityTest, ADamagedFileIsNotGuessed) {
  for (const char* text : {"", "havm-images 2\n", "havm-images 1\n1 2\n", "havm-images 1\n1 2 3 \n",
                           "havm-images 1\nx 2 3 vda\n"}) {
    ASSERT_TRUE(replace_file(image_identities_path(record), text));
    const auto checked = check_images(record, images);
    ASSERT_FALSE(checked) << text;
    EXPECT_EQ(checked.error().code, EINVAL);
    EXPECT_THAT(checked.error().message, HasSubstr(".images is damaged"));
  }
}

}  // namespace
}  // namespace havm
