// Fast DDS 2.9, Debian's and of Humble's kind, on the ROS topic /chatter: fast_dds_2_9 talk, or fast_dds_2_9 listen SECONDS COUNT
//
// Listening prints one JSON line, as the demo's listener does. Talking ends with its standard input. Settings are those of
// FASTRTPS_DEFAULT_PROFILES_FILE.
#include <poll.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include <fastdds/dds/domain/DomainParticipant.hpp>
#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>
#include <fastdds/dds/topic/TopicDataType.hpp>
#include <fastdds/dds/topic/TypeSupport.hpp>

using namespace eprosima::fastdds::dds;
using eprosima::fastrtps::rtps::InstanceHandle_t;
using eprosima::fastrtps::rtps::SerializedPayload_t;
using Clock = std::chrono::steady_clock;

// std_msgs/msg/String: a length with the zero at its end, and that.
class StringType : public TopicDataType {
public:
    StringType() {
        setName("std_msgs::msg::dds_::String_");
        m_typeSize = 1024;
    }
    bool serialize(void* data, SerializedPayload_t* payload) override {
        const auto& text = *static_cast<std::string*>(data);
        const uint32_t length = static_cast<uint32_t>(text.size()) + 1;
        if (8 + length > payload->max_size) return false;
        payload->encapsulation = CDR_LE;
        const unsigned char head[4] = {0, 1, 0, 0};
        std::memcpy(payload->data, head, 4);
        std::memcpy(payload->data + 4, &length, 4);
        std::memcpy(payload->data + 8, text.c_str(), length);
        payload->length = 8 + length;
        return true;
    }
    bool deserialize(SerializedPayload_t* payload, void* data) override {
        uint32_t length = 0;
        if (payload->length < 8) return false;
        std::memcpy(&length, payload->data + 4, 4);
        if (length == 0 || length > payload->length - 8) return false;
        static_cast<std::string*>(data)->assign(reinterpret_cast<char*>(payload->data) + 8, length - 1);
        return true;
    }
    std::function<uint32_t()> getSerializedSizeProvider(void* data) override {
        return [data] { return static_cast<uint32_t>(static_cast<std::string*>(data)->size()) + 9; };
    }
    void* createData() override { return new std::string; }
    void deleteData(void* data) override { delete static_cast<std::string*>(data); }
    bool getKey(void*, InstanceHandle_t*, bool) override { return false; }
};

static bool ended() {
    pollfd input{0, POLLIN, 0};
    return poll(&input, 1, 100) != 0;
}

static int talk(DomainParticipant* participant, Topic* topic) {
    auto* writer = participant->create_publisher(PUBLISHER_QOS_DEFAULT)->create_datawriter(topic, DATAWRITER_QOS_DEFAULT);
    for (int number = 1; !ended(); ++number) {
        std::string text = "hello from Fast DDS 2.9 #" + std::to_string(number);
        writer->write(&text);
    }
    return 0;
}

static int listen(DomainParticipant* participant, Topic* topic, double seconds, int wanted) {
    DataReaderQos qos = DATAREADER_QOS_DEFAULT;
    qos.reliability().kind = RELIABLE_RELIABILITY_QOS;
    auto* reader = participant->create_subscriber(SUBSCRIBER_QOS_DEFAULT)->create_datareader(topic, qos);
    const auto began = Clock::now();
    int heard = 0;
    double first = 0;
    while (heard < wanted) {
        const std::chrono::duration<double> past = Clock::now() - began;
        if (past.count() > seconds) break;
        std::string text;
        SampleInfo info;
        if (reader->take_next_sample(&text, &info) == ReturnCode_t::RETCODE_OK && info.valid_data) {
            if (heard++ == 0) first = past.count();
        } else {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }
    std::printf("{\"heard\": %d, \"first_after_s\": %.3f}\n", heard, first);
    return heard < wanted;
}

int main(int argc, char** argv) {
    auto* factory = DomainParticipantFactory::get_instance();
    auto* participant = factory->create_participant_with_profile(0, "ria");
    if (!participant) {
        std::fprintf(stderr, "no participant: the profile was not taken\n");
        return 2;
    }
    TypeSupport type(new StringType);
    type.register_type(participant);
    auto* topic = participant->create_topic("rt/chatter", type.get_type_name(), TOPIC_QOS_DEFAULT);
    const int code = argc > 3 ? listen(participant, topic, std::atof(argv[2]), std::atoi(argv[3])) : talk(participant, topic);
    participant->delete_contained_entities();
    factory->delete_participant(participant);
    return code;
}
