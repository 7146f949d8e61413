"""What a consumer is made of: deliveries and their answers, lanes, decoding, what follows a failure."""
