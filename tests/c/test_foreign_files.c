/* What is not a counters file of this program is left out, and stays where it is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../csrc/base/status.h"
#include "counters_fixture.h"
#include "failing_alloc.h"
#include "harness.h"

enum { HITS = MGP_WORD_HITS };

static void
start(void)
{
    failing_alloc_install();
    counters_directory_new();
}

static void
end(void)
{
    counters_directory_remove();
    failing_alloc_uninstall();
}

static struct mgp_file_id
victim(void)
{
    return counters_finished("victim", 1000);
}

/* The victim's file is left out, for this reason, at each scrape; the good one counts; and
 * folding leaves it where it is. */
static void
check_left_out(const char *name, enum mgp_flaw flaw)
{
    for (int i = 0; i < 2; i++) {
        struct mgp_snapshot snapshot;
        struct mgp_problems *problems = counters_scrape(&snapshot, NULL);
        CHECK(problems->count == 1);
        CHECK(problems->list[0].flaw == flaw && strcmp(problems->list[0].name, name) == 0);
        CHECK(strlen(mgp_flaw_text(flaw)) > 0);
        CHECK(counters_read(&snapshot, "victim", HITS) == 0);
        CHECK(counters_read(&snapshot, "good", HITS) == 1);
        CHECK(snapshot.row_count == 1);
        mgp_snapshot_fini(&snapshot);
        CHECK(counters_fold() == MGP_OK);
    }
    struct stat stat_now;
    CHECK(lstat(counters_path(name), &stat_now) == 0);
}

/* Overwrites bytes of a file. */
static void
write_at(const char *name, off_t offset, const void *bytes, size_t size)
{
    int fd = open(counters_path(name), O_WRONLY);
    CHECK(fd >= 0 && pwrite(fd, bytes, size, offset) == (ssize_t)size);
    close(fd);
}

static void
flip_byte(const char *name, off_t offset)
{
    char byte;
    int fd = open(counters_path(name), O_RDWR);
    CHECK(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
    byte = (char)(byte ^ 1);
    CHECK(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

/* Where the byte of a number lies that is worth 256 to the power of `power`. */
static off_t
byte_of(size_t field, size_t size, size_t power)
{
    const uint16_t one = 1;
    bool is_little_endian = *(const unsigned char *)&one == 1;
    return (off_t)(field + (is_little_endian ? power : size - 1 - power));
}

static char victim_name[MGP_FILE_NAME_BYTES];

static void
start_with_victim(void)
{
    start();
    counters_finished("good", 1);
    mgp_file_name(victim_name, MGP_NAME_PROCESS, victim());
}

static void
junk_is_left_out(void)
{
    char junk[5000];
    start_with_victim();
    memset(junk, 'j', sizeof(junk));
    write_at(victim_name, 0, junk, sizeof(junk));
    check_left_out(victim_name, MGP_FLAW_MAGIC);
    end();
}

static void
truncated_file_is_left_out_wherever_it_ends(void)
{
    static const off_t sizes[] = {
        MGP_FILE_HEADER_BYTES + 100, MGP_FILE_HEADER_BYTES, 200, 64, 63, 0};
    start_with_victim();
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        CHECK(truncate(counters_path(victim_name), sizes[i]) == 0);
        check_left_out(victim_name, MGP_FLAW_TRUNCATED);
    }
    end();
}

static void
file_of_another_version_is_left_out(void)
{
    struct mgp_file_preamble preamble;
    start_with_victim();
    int fd = open(counters_path(victim_name), O_RDONLY);
    CHECK(fd >= 0 && pread(fd, &preamble, sizeof(preamble), 0) == (ssize_t)sizeof(preamble));
    close(fd);
    struct mgp_file_preamble changed[] = {preamble, preamble, preamble, preamble, preamble};
    changed[0].version++;
    changed[1].fingerprint++;
    changed[2].word_count++;
    changed[3].process_word_count++;
    changed[4].row_bytes += 64;
    for (size_t i = 0; i < sizeof(changed) / sizeof(changed[0]); i++) {
        changed[i].checksum = mgp_preamble_checksum(&changed[i]);
        write_at(victim_name, 0, &changed[i], sizeof(changed[i]));
        check_left_out(victim_name, MGP_FLAW_VERSION);
    }
    changed[0] = preamble;
    changed[0].kind = MGP_FILE_ARCHIVE;
    changed[0].checksum = mgp_preamble_checksum(&changed[0]);
    write_at(victim_name, 0, &changed[0], sizeof(changed[0]));
    check_left_out(victim_name, MGP_FLAW_DAMAGED);
    end();
}

static void
damaged_header_or_row_is_noticed(void)
{
    const off_t row = MGP_FILE_HEADER_BYTES;
    const off_t in_use = byte_of(MGP_FILE_HEADER_BYTES, 8, 0); /* one bit says whether it is */
    const off_t row_count = byte_of(offsetof(struct mgp_file_header, row_count), 8, 7);
    const off_t offsets[] = {12,     20,      40,       55,       60,      row_count,
                             in_use, row + 8, row + 17, row + 20, row + 24};
    start_with_victim();
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        struct mgp_snapshot snapshot;
        flip_byte(victim_name, offsets[i]);
        struct mgp_problems *problems = counters_scrape(&snapshot, NULL);
        CHECK(offsets[i] == in_use || problems->count == 1);
        CHECK(counters_read(&snapshot, "victim", HITS) == 0 && snapshot.row_count == 1);
        mgp_snapshot_fini(&snapshot);
        flip_byte(victim_name, offsets[i]);
    }
    CHECK(counters_scrape_word("victim", HITS) == 1000);
    end();
}

static void
label_that_is_no_utf8_is_noticed_whatever_its_check_says(void)
{
    static const char *const labels[] = {"\xff", "vic\xc3", "\xc0\xaf", "\xed\xa0\x80"};
    const off_t at = MGP_FILE_HEADER_BYTES;
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        uint32_t size = (uint32_t)strlen(labels[i]);
        start_with_victim();
        uint64_t check = mgp_label_check(1, (const uint8_t *)labels[i], size);
        write_at(victim_name, at + (off_t)offsetof(struct mgp_file_row, label), labels[i], size);
        write_at(victim_name, at + (off_t)offsetof(struct mgp_file_row, label_size), &size,
                 sizeof(size));
        write_at(victim_name, at + (off_t)offsetof(struct mgp_file_row, check), &check,
                 sizeof(check));
        check_left_out(victim_name, MGP_FLAW_DAMAGED);
        end();
    }
}

static void
copy_under_another_name_is_left_out(void)
{
    char name[MGP_FILE_NAME_BYTES];
    start_with_victim();
    mgp_file_name(name, MGP_NAME_PROCESS, (struct mgp_file_id){{1, 2}});
    counters_copy_file(victim_name, name);
    CHECK(unlink(counters_path(victim_name)) == 0);
    check_left_out(name, MGP_FLAW_DAMAGED);
    end();
}

static void
strange_name_is_left_out(void)
{
    static const char *const names[] = {
        MGP_FILE_PREFIX "x.counters", MGP_FILE_PREFIX, MGP_FILE_PREFIX "00.counters",
        MGP_FILE_PREFIX "0123456789abcdef0123456789abcdef0.counters",
        MGP_FILE_PREFIX "0123456789abcdef0123456789abcdef.db"};
    start_with_victim();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char from[1024];
        snprintf(from, sizeof(from), "%s", counters_path(victim_name));
        CHECK(rename(from, counters_path(names[i])) == 0);
        snprintf(victim_name, sizeof(victim_name), "%s", names[i]);
        check_left_out(victim_name, MGP_FLAW_NAME);
    }
    end();
}

static void
files_of_others_are_no_business_of_ours(void)
{
    static const char *const names[] = {"counter_7.db", "mcpgateway_pool.txt", ".hidden", "x"};
    start();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        int fd = open(counters_path(names[i]), O_WRONLY | O_CREAT | O_EXCL, 0644);
        CHECK(fd >= 0);
        close(fd);
    }
    struct mgp_snapshot snapshot;
    CHECK(counters_scrape(&snapshot, NULL)->count == 0);
    mgp_snapshot_fini(&snapshot);
    CHECK(counters_fold() == MGP_OK);
    end();
}

static void
link_is_left_out(void)
{
    char from[1024];
    start_with_victim();
    snprintf(from, sizeof(from), "%s", counters_path("elsewhere"));
    counters_copy_file(victim_name, "elsewhere");
    CHECK(unlink(counters_path(victim_name)) == 0);
    CHECK(symlink(from, counters_path(victim_name)) == 0);
    check_left_out(victim_name, MGP_FLAW_NOT_REGULAR);
    end();
}

static void
what_is_no_regular_file_is_left_out_without_waiting(void)
{
    start_with_victim();
    CHECK(unlink(counters_path(victim_name)) == 0);
    CHECK(mkfifo(counters_path(victim_name), 0600) == 0);
    check_left_out(victim_name, MGP_FLAW_NOT_REGULAR);
    CHECK(unlink(counters_path(victim_name)) == 0);
    CHECK(mkdir(counters_path(victim_name), 0600) == 0);
    check_left_out(victim_name, MGP_FLAW_NOT_REGULAR);
    end();
}

static void
file_that_others_may_have_written_is_left_out(void)
{
    static const mode_t modes[] = {0620, 0660, 0602, 0666, 04600, 02600, 01600};
    start_with_victim();
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        CHECK(chmod(counters_path(victim_name), modes[i]) == 0);
        check_left_out(victim_name, MGP_FLAW_MODE);
    }
    end();
}

static void
mode_with_which_nobody_else_could_write_is_mended(void)
{
    static const mode_t modes[] = {0400, 0644, 0640, 0700, 0755};
    struct stat stat_now;
    start_with_victim();
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct mgp_snapshot snapshot;
        CHECK(chmod(counters_path(victim_name), modes[i]) == 0);
        CHECK(counters_scrape(&snapshot, NULL)->count == 0);
        CHECK(counters_read(&snapshot, "victim", HITS) == 1000);
        mgp_snapshot_fini(&snapshot);
        CHECK(stat(counters_path(victim_name), &stat_now) == 0);
        CHECK((stat_now.st_mode & 07777) == 0600);
    }
    end();
}

static void
mode_of_a_file_with_another_name_elsewhere_is_left_alone(void)
{
    struct stat stat_now;
    start_with_victim();
    CHECK(chmod(counters_path(victim_name), 0640) == 0);
    int directory = open(counters_path("."), O_RDONLY | O_DIRECTORY);
    CHECK(linkat(directory, victim_name, directory, "elsewhere", 0) == 0);
    close(directory);
    check_left_out(victim_name, MGP_FLAW_MODE);
    CHECK(stat(counters_path("elsewhere"), &stat_now) == 0);
    CHECK((stat_now.st_mode & 07777) == 0640);
    end();
}

static void
file_of_another_user_is_left_out(void)
{
    start_with_victim();
    if (geteuid() == 0) { /* only root can give files away */
        CHECK(chown(counters_path(victim_name), 12345, (gid_t)-1) == 0);
        check_left_out(victim_name, MGP_FLAW_OWNER);
    }
    end();
}

int
main(void)
{
    RUN(junk_is_left_out);
    RUN(truncated_file_is_left_out_wherever_it_ends);
    RUN(file_of_another_version_is_left_out);
    RUN(damaged_header_or_row_is_noticed);
    RUN(label_that_is_no_utf8_is_noticed_whatever_its_check_says);
    RUN(copy_under_another_name_is_left_out);
    RUN(strange_name_is_left_out);
    RUN(files_of_others_are_no_business_of_ours);
    RUN(link_is_left_out);
    RUN(what_is_no_regular_file_is_left_out_without_waiting);
    RUN(file_that_others_may_have_written_is_left_out);
    RUN(mode_with_which_nobody_else_could_write_is_mended);
    RUN(mode_of_a_file_with_another_name_elsewhere_is_left_alone);
    RUN(file_of_another_user_is_left_out);
    return harness_end();
}
